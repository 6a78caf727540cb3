-- Martlet 0012: maintenance: partitions ahead, retention behind, and the anchor of restored copies.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(12, 'maintain');

CREATE FUNCTION outbox.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT s.value FROM outbox.setting s WHERE s.name = setting.name $$;

-- Partitions of the log and of history with the days they hold (UTC); DEFAULT partitions have none.
CREATE FUNCTION outbox.partitions() RETURNS TABLE (parent text, partition text, day date)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.relname::text, c.relname::text, to_date(substring(c.relname FROM '_(\d{8})$'), 'YYYYMMDD')
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
  WHERE p.oid IN ('outbox.event'::regclass, 'outbox.attempt_single'::regclass, 'outbox.attempt_packed'::regclass)
$$;

-- Adds one day's partition. It is made apart and attached, which lets publishers go on; only the DEFAULT partition is
-- locked, for the moment in which rows of that day that had to go there (a late maintenance run) are moved.
CREATE FUNCTION outbox.add_partition(parent text, day date) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  partition CONSTANT text := parent || '_' || to_char(day, 'YYYYMMDD');
  keeper CONSTANT text := parent || '_default';
  first CONSTANT timestamptz := day::timestamp AT TIME ZONE 'UTC';
  after CONSTANT timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
  range_column CONSTANT text := CASE parent WHEN 'event' THEN 'id' ELSE 'at' END;
  low CONSTANT text := CASE parent WHEN 'event' THEN outbox.uuid_floor(first)::text ELSE first::text END;
  high CONSTANT text := CASE parent WHEN 'event' THEN outbox.uuid_floor(after)::text ELSE after::text END;
BEGIN
  EXECUTE format('CREATE TABLE outbox.%I (LIKE outbox.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', partition, parent);
  EXECUTE format('LOCK TABLE outbox.%I IN ACCESS EXCLUSIVE MODE', keeper);
  EXECUTE format('WITH moved AS (DELETE FROM outbox.%I WHERE %I >= %L AND %2$I < %4$L RETURNING *) INSERT INTO outbox.%5$I SELECT * FROM moved',
                 keeper, range_column, low, high, partition);
  EXECUTE format('ALTER TABLE outbox.%I ATTACH PARTITION outbox.%I FOR VALUES FROM (%L) TO (%L)', parent, partition, low, high);
END $$;

-- Whether an event of this table, a part of the log or all of it, with a lower id than `below` is not visible in `seen`: to the
-- cut or to the proof it is still to come.
-- Index: event_tx_id, of the parts that have such ids.
CREATE FUNCTION outbox.has_unseen(part text, seen pg_snapshot, below uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE unseen boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM outbox.%1$I e WHERE e.tx >= $1 AND e.id < $3)
                      OR EXISTS (SELECT FROM unnest($2) x(tx) JOIN outbox.%1$I e ON e.tx = x.tx WHERE e.id < $3)', part)
  INTO unseen USING pg_snapshot_xmax(seen), ARRAY(SELECT pg_snapshot_xip(seen)), below;
  RETURN unseen;
END $$;

-- How far the proof has come for certain.
CREATE FUNCTION outbox.proved() RETURNS pg_snapshot
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT p.done FROM outbox.proof p ORDER BY p.id DESC LIMIT 1 $$;

-- What was recorded before this moment, no open row of the ledger has still to look for. Infinity: none is open.
-- Index: proof_due.
CREATE FUNCTION outbox.looked_at_until() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(min(p.proved_at), 'infinity') FROM outbox.proof p WHERE p.due_at IS NOT NULL
$$;

-- Why a day of the log must stay, in words; null if it need not: something in it waits, is in flight, was not cut yet, is
-- open in the ledger of the proof, or is not in it yet.
-- Indexes: delivery_pkey, the partition's own on (tx, id), proof_due; outbox.batch is small.
CREATE FUNCTION outbox.event_day_needed(partition text, day date) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  low CONSTANT uuid := outbox.uuid_floor(day::timestamp AT TIME ZONE 'UTC');
  high CONSTANT uuid := outbox.uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
BEGIN
  RETURN CASE
    WHEN EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id >= low AND d.event_id < high)
      OR EXISTS (SELECT FROM outbox.batch b CROSS JOIN LATERAL unnest(b.event_ids) u(id) WHERE u.id >= low AND u.id < high)
      OR outbox.has_unseen(partition, (SELECT p.done FROM outbox.position p ORDER BY p.id DESC LIMIT 1), high)
      THEN 'still needed'
    -- Delivered since somebody last looked; or missing, and still to be repaired.
    WHEN EXISTS (SELECT FROM outbox.proof p CROSS JOIN LATERAL unnest(p.open_events) u(id)
                 WHERE p.due_at IS NOT NULL AND p.oldest < (day + 1)::timestamp AT TIME ZONE 'UTC'
                   AND u.id >= low AND u.id < high) THEN 'open in the proof'
    WHEN outbox.has_unseen(partition, outbox.proved(), high) THEN 'not proved yet' END;
END $$;

-- The same of a day of history: a proof is still to come that would miss it. An hour is for what was being recorded at its end.
CREATE FUNCTION outbox.attempt_day_needed(day date) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE after CONSTANT timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
  RETURN CASE WHEN outbox.looked_at_until() < after + interval '1 hour'
                OR outbox.has_unseen('event', outbox.proved(), outbox.uuid_floor(after)) THEN 'not proved yet' END;
END $$;

-- Drops a day of the log or of the history, unless it is still needed; says what it did.
-- Locks: the parent first, as DROP TABLE does, so that nothing that reads all partitions waits for us while we wait for it.
-- Then nobody can come to need the day between the question and the drop.
CREATE FUNCTION outbox.drop_partition(parent text, partition text, day date) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  needed text := CASE parent WHEN 'event' THEN outbox.event_day_needed(partition, day) ELSE outbox.attempt_day_needed(day) END;
BEGIN
  IF needed IS NULL AND parent = 'event' THEN
    LOCK TABLE ONLY outbox.event IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('LOCK TABLE outbox.%I IN ACCESS EXCLUSIVE MODE', partition);
    needed := outbox.event_day_needed(partition, day);
  END IF;
  IF needed IS NOT NULL THEN
    RETURN format('kept (%s)', needed);
  END IF;
  EXECUTE format('DROP TABLE outbox.%I', partition);
  RETURN 'dropped';
END $$;

-- Creates partitions ahead, drops those past retention, deletes old dead letters and expired secrets, trims outbox.position
-- and outbox.proof. What a proof has still to look for stays until then (outbox.prove), whatever its age. Any number may
-- run; one works. A run creates or drops days of one table only. What cannot get its lock at once is left for the next run,
-- so that maintenance never makes publishers queue behind somebody's long transaction. Returns what it did, a line each;
-- what is left, the next run does: call it until it creates and drops nothing.
-- What takes long comes first, what locks the log last: its locks are held until the end.
-- SECURITY DEFINER: the dispatcher runs it, and must not otherwise be able to alter the schema.
CREATE FUNCTION outbox.maintain() RETURNS TABLE (action text, subject text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
  today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
  first_event_day CONSTANT date := today - (extract(epoch FROM outbox.setting('event_retention')::interval) / 86400)::int;
  first_attempt_day CONSTANT date := today - (extract(epoch FROM outbox.setting('attempt_retention')::interval) / 86400)::int;
  p record;
  removed bigint;
  locked boolean := false;  -- a table of which a day was created or dropped
BEGIN
  IF NOT pg_try_advisory_xact_lock(1296126548, 2) THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', outbox.setting('lock_timeout'), true);

  BEGIN
    DELETE FROM outbox.dead_letter WHERE id IN (
      SELECT l.id FROM outbox.dead_letter l WHERE l.died_at < clock_timestamp() - outbox.setting('dead_letter_retention')::interval
        AND l.seq IS NULL  -- those that hold a key stay: without them nothing would ever wake it
        AND l.died_at < outbox.looked_at_until()
        AND NOT EXISTS (SELECT FROM outbox.event e WHERE e.id = l.event_id AND NOT pg_visible_in_snapshot(e.tx, outbox.proved()))
      ORDER BY l.died_at LIMIT 10000);
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
      action := 'deleted'; subject := removed || ' old dead letters';
      RETURN NEXT;
    END IF;
    -- Index: dedup_expires. A key that a publisher is just renewing is left to it.
    DELETE FROM outbox.dedup d USING (
      SELECT x.tenant, x.key FROM outbox.dedup x WHERE x.expires_at <= clock_timestamp()
      ORDER BY x.expires_at LIMIT 100000 FOR UPDATE SKIP LOCKED) x
    WHERE d.tenant = x.tenant AND d.key = x.key;
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
      action := 'deleted'; subject := removed || ' expired deduplication keys';
      RETURN NEXT;
    END IF;
    -- The newest stays, though it has expired: it says what kind of secret the next one is to be. One that the sweep of a
    -- dispatcher is just sealing is left to it.
    DELETE FROM outbox.endpoint_secret s USING (
      SELECT x.endpoint_id, x.id FROM outbox.endpoint_secret x
      WHERE x.expires_at < clock_timestamp() - outbox.setting('secret_retention')::interval
        AND EXISTS (SELECT FROM outbox.endpoint_secret n WHERE n.endpoint_id = x.endpoint_id AND n.id > x.id)
      FOR UPDATE SKIP LOCKED) x
    WHERE s.endpoint_id = x.endpoint_id AND s.id = x.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
      action := 'deleted'; subject := removed || ' expired secrets';
      RETURN NEXT;
    END IF;
    DELETE FROM outbox.position
    WHERE id <= (SELECT max(id) FROM outbox.position) - greatest(outbox.setting('position_rows')::bigint, 1);
    -- Rows past retention that no day holds: events that a redrive put back, and what came while maintenance did not run.
    DELETE FROM outbox.event_default e
    WHERE e.id < outbox.uuid_floor(first_event_day::timestamp AT TIME ZONE 'UTC')
      AND pg_visible_in_snapshot(e.tx, (SELECT x.done FROM outbox.position x ORDER BY x.id DESC LIMIT 1))
      AND NOT EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id = e.id)
      AND NOT EXISTS (SELECT FROM outbox.batch b WHERE e.id = ANY (b.event_ids))
      AND pg_visible_in_snapshot(e.tx, outbox.proved())
      AND NOT EXISTS (SELECT FROM outbox.proof x WHERE x.due_at IS NOT NULL AND x.oldest <= e.created_at
                      AND x.newest >= e.created_at AND e.id = ANY (x.open_events));
    IF NOT outbox.has_unseen('event', outbox.proved(), outbox.uuid_floor(first_event_day::timestamp AT TIME ZONE 'UTC')) THEN
      DELETE FROM outbox.past_subscription s WHERE s.ended_at < first_event_day::timestamp AT TIME ZONE 'UTC';
      DELETE FROM outbox.skipped s WHERE s.event_id < outbox.uuid_floor(first_event_day::timestamp AT TIME ZONE 'UTC');
    END IF;
    IF outbox.attempt_day_needed(first_attempt_day - 1) IS NULL THEN
      DELETE FROM outbox.attempt_single_default WHERE at < first_attempt_day::timestamp AT TIME ZONE 'UTC';
      DELETE FROM outbox.attempt_packed_default WHERE at < first_attempt_day::timestamp AT TIME ZONE 'UTC';
    END IF;
    -- The newest row says how far the proof has come.
    DELETE FROM outbox.proof x
    WHERE x.due_at IS NULL AND x.id < (SELECT max(y.id) FROM outbox.proof y)
      AND coalesce(x.newest, x.proved_at) < clock_timestamp() - outbox.setting('proof_retention')::interval;
  EXCEPTION WHEN lock_not_available THEN
    action := 'postponed (locked)'; subject := 'deleting old rows';
    RETURN NEXT;
  END;

  -- Here and below, one table's lock at a time: who already holds another one that a cut or a record waits for, as whoever has
  -- just created a day does, and waits for this one, which they hold, would be waited for in a circle.
  FOR p IN
    SELECT parent.name AS parent, d.day::date AS day
    FROM unnest('{event,attempt_packed,attempt_single}'::text[]) parent(name),
         generate_series(today, today + outbox.setting('partitions_ahead')::int, interval '1 day') d(day)
    WHERE NOT EXISTS (SELECT FROM outbox.partitions() x WHERE x.parent = parent.name AND x.day = d.day::date)
    ORDER BY 1, 2
  LOOP
    EXIT WHEN locked AND subject NOT LIKE p.parent || '%';
    subject := p.parent || '_' || to_char(p.day, 'YYYYMMDD');
    BEGIN
      PERFORM outbox.add_partition(p.parent, p.day);
      action := 'created';
    EXCEPTION
      WHEN lock_not_available THEN action := 'postponed (locked)';
      WHEN OTHERS THEN action := 'failed (' || SQLERRM || ') to create';
    END;
    locked := locked OR action = 'created';
    RETURN NEXT;
    EXIT WHEN action = 'postponed (locked)';
  END LOOP;

  FOR p IN
    SELECT x.parent, x.partition, x.day FROM outbox.partitions() x
    WHERE NOT locked AND x.day < CASE x.parent WHEN 'event' THEN first_event_day ELSE first_attempt_day END
    ORDER BY x.parent, x.day
  LOOP
    EXIT WHEN locked AND subject NOT LIKE p.parent || '%';
    subject := p.partition;
    BEGIN
      action := outbox.drop_partition(p.parent, p.partition, p.day);
    EXCEPTION
      WHEN lock_not_available THEN action := 'postponed (locked)';
      WHEN OTHERS THEN action := 'failed (' || SQLERRM || ') to drop';
    END;
    locked := locked OR action = 'dropped';
    RETURN NEXT;
    EXIT WHEN action = 'postponed (locked)';
  END LOOP;
END $$;

-- Makes a restored copy dispatchable. `from_where`: 'now' (nothing from before is ever sent: what waited becomes dead
-- letters, reason discarded) or 'last_cut' (goes on exactly where the original stood when the copy was made).
-- Transaction ids of the original mean nothing here and would collide with this cluster's, so the log is restamped: this
-- is the one place that updates events. Returns how many events will be cut anew.
CREATE FUNCTION outbox.reanchor(from_where text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last outbox.position;
  own CONSTANT xid8 := pg_current_xact_id();
  here pg_snapshot;
  pending bigint := 0;
BEGIN
  IF from_where NOT IN ('now', 'last_cut') OR from_where IS NULL THEN
    RAISE EXCEPTION 'say from where: outbox.reanchor(''now'') or outbox.reanchor(''last_cut'')'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM outbox.require_read_committed();
  PERFORM pg_advisory_xact_lock(1296126548, 0);
  LOCK TABLE outbox.event IN EXCLUSIVE MODE;
  SELECT * INTO STRICT last FROM outbox.position ORDER BY id DESC LIMIT 1;
  PERFORM outbox.give_back(h.id, '{}', '{}')
  FROM (SELECT d.id FROM outbox.dispatcher d UNION SELECT f.dispatcher_id FROM outbox.in_flight f) h(id);
  DELETE FROM outbox.dispatcher;
  DELETE FROM outbox.witness;
  IF from_where = 'now' THEN
    INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, key, payload, metadata, created_at, attempts, reason, last_status, last_error)
    SELECT d.event_id, d.endpoint_id, ep.url, e.type, e.tenant, e.key, e.payload, e.metadata, e.created_at, d.attempts, 'discarded', d.last_status, d.last_error
    FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id JOIN outbox.endpoint ep ON ep.id = d.endpoint_id
    ON CONFLICT DO NOTHING;
    DELETE FROM outbox.delivery;
    UPDATE outbox.dead_letter SET seq = NULL WHERE seq IS NOT NULL;
    UPDATE outbox.event SET tx = '3';
  ELSE
    -- 3 is the first normal transaction id: older than any snapshot to come.
    UPDATE outbox.event e SET tx = CASE
      WHEN pg_visible_in_snapshot(e.tx, last.done)
        OR (pg_visible_in_snapshot(e.tx, last.target) AND (e.tx, e.id) <= (last.after_tx, last.after_id)) THEN '3'::xid8
      ELSE own END;
    SELECT count(*) INTO pending FROM outbox.event WHERE tx = own;
  END IF;
  PERFORM outbox.settle(2147483647);
  UPDATE outbox.subscription SET since = NULL;
  DELETE FROM outbox.past_subscription;
  DELETE FROM outbox.proof;
  -- A transaction counts as over in its own snapshot once one with a higher id has ended; ours is still to come.
  here := pg_current_snapshot();
  IF own < pg_snapshot_xmax(here) THEN
    here := format('%s:%s:%s', least(own, pg_snapshot_xmin(here)), pg_snapshot_xmax(here),
      (SELECT string_agg(x::text, ',' ORDER BY x) FROM (SELECT own AS x UNION SELECT pg_snapshot_xip(here)) x))::pg_snapshot;
  END IF;
  INSERT INTO outbox.position (done, target, events) VALUES (here, here, 0);
  INSERT INTO outbox.proof (done, target) VALUES (here, here);  -- begins anew, too: what was before is the original's
  UPDATE outbox.anchor a SET system_identifier = c.system_identifier, database_oid = d.oid, anchored_at = clock_timestamp()
  FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
  RETURN pending;
END $$;

SELECT * FROM outbox.maintain();  -- a table each
SELECT * FROM outbox.maintain();
SELECT * FROM outbox.maintain();
COMMIT;
