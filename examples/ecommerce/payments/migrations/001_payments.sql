CREATE TABLE payments (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Of the service orders, in another database.
    order_id   bigint NOT NULL,
    amount     numeric(12, 2) NOT NULL CHECK (amount > 0),
    currency   char(3) NOT NULL,
    status     text NOT NULL DEFAULT 'pending'
               CHECK (status IN ('pending', 'settled', 'failed')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX payments_by_order ON payments (order_id);

INSERT INTO payments (order_id, amount, currency, status)
VALUES (1, 38.20, 'EUR', 'settled');
