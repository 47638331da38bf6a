-- The orders service's own database. Safe to run again.

CREATE TABLE IF NOT EXISTS purchase_order (
    id         uuid PRIMARY KEY,
    vendor     text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now()
);

-- item_id comes from the order; everything below it is kept current by the consumer.
CREATE TABLE IF NOT EXISTS po_line (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    purchase_order_id uuid NOT NULL REFERENCES purchase_order,
    item_id           uuid NOT NULL,
    quantity          integer NOT NULL DEFAULT 1 CHECK (quantity > 0),
    item_version      bigint,                   -- null: no event of the item has arrived yet
    barcode           text,
    material_type     text,
    item_status       text,
    item_deleted      boolean NOT NULL DEFAULT false,
    holdings_id       uuid,
    call_number       text,
    location          text,
    instance_id       uuid,
    title             text
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
