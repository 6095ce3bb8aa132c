-- What `outrigger migrate provision` does for the three example services, for
-- people who provision by hand and for the first start of a container: a login
-- role each, a schema each for users and orders, a database for payments.
--
--     psql -v users_password=… -v orders_password=… -v payments_password=… \
--          -f init-db.sql -d zintrust
--
-- In a container below /docker-entrypoint-initdb.d the passwords come from
-- USERS_PASSWORD, ORDERS_PASSWORD and PAYMENTS_PASSWORD. Give them to the
-- services as `database.rolePassword` and set `provision: false`, or leave the
-- rest to Outrigger: the comments say whose everything is, and it keeps its hands
-- off what does not carry them. What is there already keeps its password. Needs
-- psql 14 and a superuser.
\set ON_ERROR_STOP on
\if :{?users_password}
\else
  \getenv users_password USERS_PASSWORD
\endif
\if :{?orders_password}
\else
  \getenv orders_password ORDERS_PASSWORD
\endif
\if :{?payments_password}
\else
  \getenv payments_password PAYMENTS_PASSWORD
\endif
\if :{?users_password}
\else
  \warn 'set users_password, orders_password and payments_password'
  SELECT 1 / 0 AS "no passwords";
\endif
\set base :DBNAME

-- psql makes verifiers only in \password, so statements with passwords are kept
-- from the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION '
              'NOBYPASSRLS CONNECTION LIMIT 50 PASSWORD %L', role, password)
FROM (VALUES ('ecommerce_users', :'users_password'),
             ('ecommerce_orders', :'orders_password'),
             ('ecommerce_payments', :'payments_password')) AS wanted (role, password)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
RESET log_statement;
RESET log_min_duration_statement;
RESET log_min_error_statement;
COMMENT ON ROLE ecommerce_users IS 'outrigger:ecommerce/users';
COMMENT ON ROLE ecommerce_orders IS 'outrigger:ecommerce/orders';
COMMENT ON ROLE ecommerce_payments IS 'outrigger:ecommerce/payments';

-- users and orders: shared, a schema each in the base database.
CREATE SCHEMA IF NOT EXISTS ecommerce_users AUTHORIZATION ecommerce_users;
CREATE SCHEMA IF NOT EXISTS ecommerce_orders AUTHORIZATION ecommerce_orders;
COMMENT ON SCHEMA ecommerce_users IS 'outrigger:ecommerce/users';
COMMENT ON SCHEMA ecommerce_orders IS 'outrigger:ecommerce/orders';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER ROLE ecommerce_users IN DATABASE :"base" SET search_path = 'ecommerce_users';
ALTER ROLE ecommerce_users IN DATABASE :"base" SET statement_timeout = '30000ms';
ALTER ROLE ecommerce_users IN DATABASE :"base" SET idle_in_transaction_session_timeout = '60000ms';
ALTER ROLE ecommerce_orders IN DATABASE :"base" SET search_path = 'ecommerce_orders';
ALTER ROLE ecommerce_orders IN DATABASE :"base" SET statement_timeout = '30000ms';
ALTER ROLE ecommerce_orders IN DATABASE :"base" SET idle_in_transaction_session_timeout = '60000ms';

-- payments: isolated, a database of its own, closed to everybody else.
SELECT format('CREATE DATABASE %I OWNER ecommerce_payments', :'base' || '_payments')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'base' || '_payments') \gexec
SELECT :'base' || '_payments' AS payments \gset
COMMENT ON DATABASE :"payments" IS 'outrigger:ecommerce/payments';
REVOKE CONNECT, TEMPORARY ON DATABASE :"payments" FROM PUBLIC;
\connect :"payments"
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO ecommerce_payments;
ALTER ROLE ecommerce_payments IN DATABASE :"payments" SET search_path = 'public';
ALTER ROLE ecommerce_payments IN DATABASE :"payments" SET statement_timeout = '30000ms';
ALTER ROLE ecommerce_payments IN DATABASE :"payments" SET idle_in_transaction_session_timeout = '60000ms';
