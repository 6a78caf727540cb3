-- Martlet 0003: publishing. `INSERT INTO outbox.event (type, payload) VALUES (...)` is all it takes; this function is the
-- same insert for those who want the id back.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(3, 'publish');

-- Inserts an event in the caller's transaction and returns its id: the event is delivered if and only if that
-- transaction commits.
-- SECURITY DEFINER: to return the id without giving publishers the right to read the log. It touches nothing else.
CREATE FUNCTION outbox.publish(
  type text, payload jsonb, key text DEFAULT NULL, tenant text DEFAULT '', metadata jsonb DEFAULT '{}',
  not_before timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO outbox.event (type, payload, key, tenant, metadata, not_before)
  VALUES (type, payload, key, coalesce(tenant, ''), coalesce(metadata, '{}'), not_before)
  RETURNING id
$$;
COMMIT;
