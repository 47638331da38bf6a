-- The orders service's own database. Safe to run again.

CREATE TABLE IF NOT EXISTS purchase_order (
    id         uuid PRIMARY KEY,
    vendor     text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now()
);

-- What was ordered. What is known of the items stands in the tables below and is joined when a line is read, in the
-- view po_line_current: so no line can be out of date, in whatever order the events of its three aggregates arrive.
CREATE TABLE IF NOT EXISTS po_line (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    purchase_order_id uuid NOT NULL REFERENCES purchase_order,
    item_id           uuid NOT NULL,
    quantity          integer NOT NULL DEFAULT 1 CHECK (quantity > 0)
);
CREATE INDEX IF NOT EXISTS po_line_item ON po_line (item_id);

-- What the service knows of the catalogue. Events of different aggregates arrive in any order, so nothing here
-- refers to another table: an item may be known before its holdings, and holdings before their instance.
CREATE TABLE IF NOT EXISTS known_item (
    id            uuid PRIMARY KEY,
    version       bigint NOT NULL,
    deleted       boolean NOT NULL DEFAULT false,
    holdings_id   uuid,
    barcode       text,
    material_type text,
    status        text
);
CREATE INDEX IF NOT EXISTS known_item_holdings ON known_item (holdings_id);

CREATE TABLE IF NOT EXISTS known_holdings (
    id          uuid PRIMARY KEY,
    version     bigint NOT NULL,
    instance_id uuid,
    call_number text,
    location    text
);
CREATE INDEX IF NOT EXISTS known_holdings_instance ON known_holdings (instance_id);

CREATE TABLE IF NOT EXISTS known_instance (
    id      uuid PRIMARY KEY,
    version bigint NOT NULL,
    title   text
);

-- item_version is null while no event of the item has arrived.
CREATE OR REPLACE VIEW po_line_current AS
SELECT line.id, line.purchase_order_id, line.item_id, line.quantity,
       i.version AS item_version, i.barcode, i.material_type, i.status AS item_status,
       coalesce(i.deleted, false) AS item_deleted, i.holdings_id, h.call_number, h.location, h.instance_id, n.title
FROM po_line AS line
LEFT JOIN known_item AS i ON i.id = line.item_id
LEFT JOIN known_holdings AS h ON h.id = i.holdings_id
LEFT JOIN known_instance AS n ON n.id = h.instance_id;

-- Every effect leaves a row. No unique constraint: an event that were applied twice would show here.
CREATE TABLE IF NOT EXISTS applied_event (
    seq        bigserial PRIMARY KEY,
    event_id   text NOT NULL,
    aggregate  text NOT NULL,
    id_text    text NOT NULL,
    version    bigint NOT NULL,
    kind       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
