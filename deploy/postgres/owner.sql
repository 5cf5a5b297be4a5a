-- Run once, by the superuser, in an empty cluster: the role that owns Conclave's tables, and its database.
-- `conclave db upgrade` makes the application's role as this one, which is why it may make roles.
\getenv owner_password OWNER_PASSWORD
CREATE ROLE conclave_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE DATABASE conclave OWNER conclave_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE conclave FROM PUBLIC;
