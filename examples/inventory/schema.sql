-- The inventory of a library: an instance is a title, holdings are its copies at one place, an item is one copy.
-- Idempotent. circulation_notes and last_borrower are private: they are never published.

CREATE TABLE IF NOT EXISTS public.instance (
    id                 uuid PRIMARY KEY,
    hrid               text NOT NULL UNIQUE,
    title              text NOT NULL,
    source             text NOT NULL,
    instance_type      text NOT NULL,
    contributors       jsonb NOT NULL DEFAULT '[]',     -- array of {"name": text, "primary": boolean}
    languages          text[] NOT NULL DEFAULT '{}',
    published_year     integer,
    discovery_suppress boolean NOT NULL DEFAULT false,
    updated_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.holdings (
    id                 uuid PRIMARY KEY,
    hrid               text NOT NULL UNIQUE,
    instance_id        uuid NOT NULL REFERENCES public.instance,
    permanent_location text NOT NULL,
    call_number        text,
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS holdings_instance ON public.holdings (instance_id);

CREATE TABLE IF NOT EXISTS public.item (
    id                 uuid PRIMARY KEY,
    hrid               text NOT NULL UNIQUE,
    holdings_id        uuid NOT NULL REFERENCES public.holdings,
    barcode            text UNIQUE,
    material_type      text NOT NULL,
    status             text NOT NULL,
    price              numeric(10,2),
    circulation_notes  text,
    last_borrower      text,
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS item_holdings ON public.item (holdings_id);
