-- Martlet 0004: leases: who may act, and what becomes of those who may not any more.
--
-- Advisory locks, all of them released with their transaction, but for that of `martlet migrate`:
--   (1296126548, 0)            one dispatcher cuts at a time
--   (1296126548, 1)            one migration at a time
--   (1296126548, 2)            one maintenance at a time
--   (1296126548, 3)            one `martlet migrate` at a time
--   (1296126548, 4)            one sealing of secrets at a time
--   (1296126548, 5)            one repair at a time
--   (1296126548, 6)            one prover at a time
--   (1296126549, dispatcher)   shared by each step a dispatcher takes under its lease, exclusive to take the lease away
--   (1296126550, endpoint)     an ordered endpoint's keys: cut adds successors, record promotes them
--   (1296126551, dispatcher)   one record of a dispatcher at a time, also after it lost its connection in the middle
--   (1296126552, endpoint)     a rate limit's bucket, from looking into it to taking out of it; only tried, never waited for,
--                              but for the end of the endpoint
--
-- The plans of the hot functions are fixed: generic plans, indexes only, whatever the statistics of the day say.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(4, 'lease');

-- Plain SQL without SET, so that it is inlined; every name is therefore qualified.
CREATE FUNCTION outbox.lock_number(id bigint) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT (id OPERATOR(pg_catalog.%) 2147483647::pg_catalog.int8)::pg_catalog.int4 $$;

-- Registers a dispatcher and returns its id, the name of its lease.
CREATE FUNCTION outbox.register(name text, host text, pid int, version text, lease interval DEFAULT '15 s')
RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH registered AS (
    INSERT INTO outbox.dispatcher (name, host, pid, version, expires_at)
    VALUES (name, host, pid, version, clock_timestamp() + lease) RETURNING id)
  INSERT INTO outbox.witness (dispatcher_id) SELECT id FROM registered RETURNING dispatcher_id
$$;

-- Renews a lease; false if it is gone. One that ran out but was not taken away yet can still be renewed: nobody has acted
-- on its end, and nobody can while the row is being written.
CREATE FUNCTION outbox.heartbeat(dispatcher bigint, lease interval DEFAULT '15 s') RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH renewed AS (
    UPDATE outbox.dispatcher SET expires_at = clock_timestamp() + lease WHERE id = heartbeat.dispatcher RETURNING 1)
  SELECT EXISTS (SELECT FROM renewed)
$$;

-- Steps that read what another transaction wrote before it released a lock need a snapshot taken after that lock. Under
-- REPEATABLE READ the snapshot is older: a cut would take events twice, and the fence would not hold.
CREATE FUNCTION outbox.require_read_committed() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE EXCEPTION 'this needs isolation level READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      USING ERRCODE = 'active_sql_transaction', HINT = 'SET default_transaction_isolation = ''read committed''';
  END IF;
END $$;

-- The fence: holds the lease for the rest of this transaction, or refuses. Nobody can take it away meanwhile.
-- `resyncs`: the number of the resync that the caller last made; null: not to be checked. A step that was on its way when
-- the connection broke may arrive after the dispatcher has given it up and compared; carried out then, it would hand over
-- what nobody takes, or record for a second time.
CREATE FUNCTION outbox.hold_lease(dispatcher bigint, resyncs bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  expiry timestamptz;
  witness boolean;
  newest bigint;
BEGIN
  PERFORM outbox.require_read_committed();
  PERFORM pg_advisory_xact_lock_shared(1296126549, outbox.lock_number(dispatcher));
  SELECT d.expires_at, w.dispatcher_id IS NOT NULL, w.resyncs INTO expiry, witness, newest
  FROM outbox.dispatcher d LEFT JOIN outbox.witness w ON w.dispatcher_id = d.id WHERE d.id = hold_lease.dispatcher
  ORDER BY d.expires_at DESC LIMIT 1;
  IF expiry IS NULL THEN
    RAISE EXCEPTION 'dispatcher % has no lease: it ran out and another dispatcher took over', dispatcher USING ERRCODE = 'OBX02';
  ELSIF expiry <= clock_timestamp() THEN
    RAISE EXCEPTION 'the lease of dispatcher % ran out at %', dispatcher, expiry USING ERRCODE = 'OBX01';
  ELSIF NOT witness THEN
    RAISE EXCEPTION 'PostgreSQL has crashed or failed over since dispatcher % last looked: it must resync first', dispatcher
      USING ERRCODE = 'OBX03';
  ELSIF resyncs <> newest THEN
    RAISE EXCEPTION 'dispatcher % has resynced (%) since it sent this (%)', dispatcher, newest, resyncs USING ERRCODE = 'OBX03';
  END IF;
END $$;

-- Why this database must not be dispatched from, in words; null if it may.
CREATE FUNCTION outbox.anchor_problem() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN a.system_identifier <> c.system_identifier THEN format(
      'this database is a copy: its log belongs to cluster %s, and this is cluster %s', a.system_identifier, c.system_identifier)
    WHEN a.database_oid <> d.oid THEN format(
      'this database is a copy: its log belongs to the database with oid %s, and this one has oid %s', a.database_oid, d.oid)
  END
  FROM outbox.anchor a, pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;

-- Pairs of batches without a recorded outcome. OFFSET 0: a probe per pair, whatever the size of history.
-- Indexes: attempt_single_event, attempt_packed_second; outbox.batch is small.
CREATE VIEW outbox.direct_in_flight AS
SELECT u.event_id, u.endpoint_id, b.dispatcher_id, b.id AS batch_id, b.cut_at AS since
FROM outbox.batch b CROSS JOIN LATERAL (
  SELECT u.event_id, u.endpoint_id FROM unnest(b.event_ids, b.endpoint_ids) u(event_id, endpoint_id)
  EXCEPT ALL
  SELECT k.event_id, k.endpoint_id
  FROM (SELECT DISTINCT ('x' || encode(substr(uuid_send(u.id), 1, 6), 'hex'))::bit(48)::bigint / 1000 AS second  -- outbox.uuid_second
        FROM unnest(b.event_ids) u(id)) s
  CROSS JOIN LATERAL (SELECT p.event_ids, p.endpoint_ids FROM outbox.attempt_packed p
                      WHERE p.second = s.second AND p.batch_id = b.id OFFSET 0) p
  CROSS JOIN LATERAL unnest(p.event_ids, p.endpoint_ids) k(event_id, endpoint_id)
) u
WHERE NOT EXISTS (SELECT FROM outbox.attempt_single a
                  WHERE a.event_id = u.event_id AND a.endpoint_id = u.endpoint_id AND a.batch_id = b.id OFFSET 0);

-- Makes what a dispatcher was handed available again, except the pairs named: pairs of its batches without a recorded
-- outcome become rows of outbox.delivery, due now; its claimed deliveries are unclaimed. Returns how many pairs that was.
-- `kept_batches`: the batch that each of those is held by, null if it was claimed; held otherwise than the tables say, it is
-- not kept. (Null as a whole: however it is held.)
-- The caller holds the dispatcher's lock exclusively.
-- Indexes: attempt_single_event, attempt_packed_second, delivery_claimed, delivery_pkey; outbox.batch is small.
CREATE FUNCTION outbox.give_back(dispatcher bigint, kept_events uuid[], kept_endpoints bigint[], kept_batches bigint[] DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET jit = off
AS $$
DECLARE
  from_batches bigint;
  from_claims bigint;
BEGIN
  WITH kept AS MATERIALIZED (
    SELECT k.event, k.endpoint, k.batch FROM unnest(kept_events, kept_endpoints, kept_batches) k(event, endpoint, batch)
  ), pair AS MATERIALIZED (
    -- Of each batch what was not recorded yet. What was, and is held again by a claim, does not keep the batch.
    SELECT f.batch_id, f.event_id AS event, f.endpoint_id AS endpoint, k.event IS NOT NULL AS is_kept
    FROM outbox.direct_in_flight f
    LEFT JOIN kept k ON k.event = f.event_id AND k.endpoint = f.endpoint_id AND (kept_batches IS NULL OR k.batch = f.batch_id)
    WHERE f.dispatcher_id = give_back.dispatcher
  ), unresolved AS MATERIALIZED (
    SELECT p.batch_id, p.event, p.endpoint FROM pair p WHERE NOT p.is_kept
  ), noted AS (
    INSERT INTO outbox.attempt_single (event_id, endpoint_id, batch_id, dispatcher_id, outcome, attempt)
    SELECT r.event, r.endpoint, r.batch_id, give_back.dispatcher, 'unknown', 0 FROM unresolved r
  ), closed AS (
    DELETE FROM outbox.batch b
    WHERE b.dispatcher_id = give_back.dispatcher AND b.id NOT IN (SELECT p.batch_id FROM pair p WHERE p.is_kept)
  ), parked AS (
    INSERT INTO outbox.delivery (event_id, endpoint_id, due_at)
    SELECT r.event, r.endpoint, clock_timestamp() FROM unresolved r
    ON CONFLICT (event_id, endpoint_id) DO NOTHING RETURNING 1
  ) SELECT count(*) INTO from_batches FROM parked;
  WITH unclaimed AS (
    UPDATE outbox.delivery d SET dispatcher_id = NULL, due_at = clock_timestamp()
    WHERE d.dispatcher_id = give_back.dispatcher
      AND NOT EXISTS (SELECT FROM unnest(kept_events, kept_endpoints, kept_batches) k(event, endpoint, batch)
                      WHERE k.event = d.event_id AND k.endpoint = d.endpoint_id AND k.batch IS NULL)
    RETURNING d.event_id, d.endpoint_id, d.attempts
  ), noted AS (
    INSERT INTO outbox.attempt_single (event_id, endpoint_id, dispatcher_id, outcome, attempt)
    SELECT u.event_id, u.endpoint_id, give_back.dispatcher, 'unknown', u.attempts FROM unclaimed u RETURNING 1
  ) SELECT count(*) INTO from_claims FROM noted;
  RETURN from_batches + from_claims;
END $$;

-- Takes over from dispatchers whose lease ran out: all they held becomes available at once and their row is deleted, in
-- one transaction; should one wake up, it is fenced. Returns a row per dispatcher taken over. Never takes over from the
-- caller itself; and a caller that must resync is told so. For `settle` after the server has started nobody is taken over from: after an outage longer than the lease
-- the others, too, must have the chance to renew theirs.
-- Locks: the dispatcher's row and lock; skips those another dispatcher is recovering, or that are in a step right now.
CREATE FUNCTION outbox.recover(caller bigint DEFAULT NULL, settle interval DEFAULT '0 s') RETURNS TABLE (dispatcher_id bigint, name text, deliveries bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE lost record;
BEGIN
  IF EXISTS (SELECT FROM outbox.dispatcher d WHERE d.id = caller)
      AND NOT EXISTS (SELECT FROM outbox.witness w WHERE w.dispatcher_id = caller) THEN
    RAISE EXCEPTION 'PostgreSQL has crashed or failed over since dispatcher % last looked: it must resync first', caller
      USING ERRCODE = 'OBX03';
  END IF;
  FOR lost IN
    SELECT d.id, d.name FROM outbox.dispatcher d
    WHERE d.expires_at <= clock_timestamp() AND d.id IS DISTINCT FROM caller
      AND clock_timestamp() >= pg_postmaster_start_time() + settle
    ORDER BY d.id FOR UPDATE SKIP LOCKED
  LOOP
    CONTINUE WHEN NOT pg_try_advisory_xact_lock(1296126549, outbox.lock_number(lost.id));
    dispatcher_id := lost.id;
    name := lost.name;
    deliveries := outbox.give_back(lost.id, '{}', '{}');
    DELETE FROM outbox.dispatcher d WHERE d.id = lost.id;
    DELETE FROM outbox.witness w WHERE w.dispatcher_id = lost.id;
    RETURN NEXT;
  END LOOP;
END $$;

-- After a lost connection or a crash of PostgreSQL: makes what the database says a dispatcher holds agree with what it does
-- hold, the pairs named. The rest was handed over in a reply that never came, or recorded in a transaction that the crash
-- took back; it becomes available again. Waits for a step still running on the lost connection. `number` counts the caller's
-- resyncs: what it sent before is refused from now on, should it arrive yet. (Null: steps are not checked.)
CREATE FUNCTION outbox.resync(dispatcher bigint, held_events uuid[], held_endpoints bigint[], number bigint DEFAULT NULL,
  held_batches bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1296126549, outbox.lock_number(dispatcher));
  INSERT INTO outbox.witness AS w (dispatcher_id, resyncs)
  SELECT d.id, coalesce(resync.number, 0) FROM outbox.dispatcher d WHERE d.id = resync.dispatcher
  ON CONFLICT (dispatcher_id) DO UPDATE SET resyncs = resync.number WHERE resync.number > w.resyncs;
  PERFORM outbox.hold_lease(dispatcher, resync.number);
  RETURN outbox.give_back(dispatcher, held_events, held_endpoints, held_batches);
END $$;

-- The end of a dispatcher that shuts down in order: gives back what is left and releases the lease.
CREATE FUNCTION outbox.release(dispatcher bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE given_back bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(1296126549, outbox.lock_number(dispatcher));
  PERFORM FROM outbox.dispatcher d WHERE d.id = release.dispatcher FOR UPDATE;
  given_back := outbox.give_back(dispatcher, '{}', '{}');
  DELETE FROM outbox.dispatcher d WHERE d.id = release.dispatcher;
  DELETE FROM outbox.witness w WHERE w.dispatcher_id = release.dispatcher;
  RETURN given_back;
END $$;
COMMIT;
