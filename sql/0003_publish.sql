-- Martlet 0003: publishing. `INSERT INTO outbox.event (type, payload) VALUES (...)` is all it takes; this function is the
-- same insert for those who want the id back.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(3, 'publish');

-- Inserts an event in the caller's transaction and returns its id: the event is delivered if and only if that
-- transaction commits. Types that begin with `martlet.` are refused: Martlet publishes them itself.
--
-- With `dedup_key` it publishes once: whoever publishes with the same key for the same tenant until `dedup_window` (at most
-- 30 days) has passed since then gets the id of that event, and nothing is inserted. If a transaction that used the key is
-- still open, this waits for it; if it rolls back, this publishes. A transaction REPEATABLE READ or SERIALIZABLE that waited
-- in vain, or whose snapshot is older than the other's commit, fails with SQLSTATE 40001, as for any row that two write;
-- repeated, as such transactions must be, it gets the id.
-- Index: dedup_pkey. Locks: the key's row, until the end of the transaction; a duplicate, once that is committed, none.
--
-- SECURITY DEFINER: to return the id without giving publishers the right to read the log, or the keys of others. It touches
-- nothing else.
CREATE FUNCTION outbox.publish(
  type text, payload jsonb, key text DEFAULT NULL, tenant text DEFAULT '', metadata jsonb DEFAULT '{}',
  not_before timestamptz DEFAULT NULL, dedup_key text DEFAULT NULL, dedup_window interval DEFAULT '24 hours'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  event uuid;
BEGIN
  IF type LIKE 'martlet.%' THEN  -- the constraint sees the owner's rights here, and would let it pass
    RAISE EXCEPTION 'the type must not begin with "martlet.": such events are Martlet''s own' USING ERRCODE = 'check_violation';
  END IF;
  IF dedup_key IS NULL THEN
    INSERT INTO outbox.event (type, payload, key, tenant, metadata, not_before)
    VALUES (type, payload, key, coalesce(tenant, ''), coalesce(metadata, '{}'), not_before) RETURNING id INTO event;
    RETURN event;
  END IF;
  tenant := coalesce(tenant, '');
  IF octet_length(dedup_key) NOT BETWEEN 1 AND 1024 THEN
    RAISE EXCEPTION 'the dedup_key must be 1 to 1024 bytes, not %', octet_length(dedup_key) USING ERRCODE = 'check_violation';
  ELSIF dedup_window IS NULL OR dedup_window <= interval '0' OR dedup_window > interval '30 days' THEN
    RAISE EXCEPTION 'the dedup_window must be more than 0 and at most 30 days, not %', coalesce(dedup_window::text, 'null')
      USING ERRCODE = 'check_violation';
  ELSIF octet_length(tenant) > 255 THEN
    RAISE EXCEPTION 'the tenant must be at most 255 bytes, not %', octet_length(tenant) USING ERRCODE = 'check_violation';
  END IF;
  -- First without a lock, so that duplicates of what was committed long ago wait neither for each other nor for a writer.
  SELECT d.event_id INTO event FROM outbox.dedup d
  WHERE d.tenant = publish.tenant AND d.key = publish.dedup_key AND d.expires_at > clock_timestamp();
  IF event IS NOT NULL THEN
    RETURN event;
  END IF;
  -- Waits for whoever has used the key and is not done. Locks the row even if it is not to be changed: then it says which
  -- event it was, and maintenance cannot remove it between the two statements.
  INSERT INTO outbox.dedup AS d (tenant, key, event_id, expires_at)
  VALUES (tenant, dedup_key, outbox.uuid_v7(), clock_timestamp() + dedup_window)
  ON CONFLICT ON CONSTRAINT dedup_pkey DO UPDATE SET event_id = EXCLUDED.event_id, expires_at = clock_timestamp() + dedup_window
    WHERE d.expires_at <= clock_timestamp()
  RETURNING d.event_id INTO event;
  IF event IS NULL THEN
    SELECT d.event_id INTO STRICT event FROM outbox.dedup d WHERE d.tenant = publish.tenant AND d.key = publish.dedup_key;
    RETURN event;
  END IF;
  INSERT INTO outbox.event (id, type, payload, key, tenant, metadata, not_before)
  VALUES (event, type, payload, key, tenant, coalesce(metadata, '{}'), not_before);
  RETURN event;
END $$;
COMMIT;
