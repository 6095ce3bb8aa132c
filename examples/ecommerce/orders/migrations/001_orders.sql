CREATE TABLE orders (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Of the service users: no foreign key leads out of a service.
    user_id    bigint NOT NULL,
    status     text NOT NULL DEFAULT 'open'
               CHECK (status IN ('open', 'paid', 'shipped', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE order_items (
    order_id   bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    position   integer NOT NULL CHECK (position > 0),
    sku        text NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(12, 2) NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (order_id, position)
);

INSERT INTO orders (user_id) VALUES (1);
INSERT INTO order_items VALUES (1, 1, 'book', 2, 17.50), (1, 2, 'pen', 1, 3.20);
