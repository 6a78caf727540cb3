-- Martlet 0006: maintenance: partitions ahead, retention behind, and the anchor of restored copies.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(6, 'maintain');

CREATE FUNCTION outbox.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT s.value FROM outbox.setting s WHERE s.name = setting.name $$;

-- Partitions of outbox.event and outbox.attempt with the days they hold (UTC); DEFAULT partitions have none.
CREATE FUNCTION outbox.partitions() RETURNS TABLE (parent text, partition text, day date)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.relname::text, c.relname::text, to_date(substring(c.relname FROM '_(\d{8})$'), 'YYYYMMDD')
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
  WHERE p.oid IN ('outbox.event'::regclass, 'outbox.attempt'::regclass)
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

-- Whether a partition of the log is still needed: something in it waits, is in flight, or was not cut yet.
CREATE FUNCTION outbox.partition_needed(partition text, day date) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  low CONSTANT uuid := outbox.uuid_floor(day::timestamp AT TIME ZONE 'UTC');
  high CONSTANT uuid := outbox.uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
  uncut boolean;
BEGIN
  IF EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id >= low AND d.event_id < high)
     OR EXISTS (SELECT FROM outbox.batch b, unnest(b.event_ids) id WHERE id >= low AND id < high) THEN
    RETURN true;
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM outbox.%I WHERE NOT pg_visible_in_snapshot(tx,
                    (SELECT done FROM outbox.position ORDER BY id DESC LIMIT 1)))', partition) INTO uncut;
  RETURN uncut;
END $$;

-- Creates partitions ahead, drops those past retention, deletes old dead letters, trims outbox.position. Any number may
-- run; one works. What cannot get its lock at once is left for the next run, so that maintenance never makes publishers
-- queue behind somebody's long transaction. Returns what it did, a line each.
-- SECURITY DEFINER: the dispatcher runs it, and must not otherwise be able to alter the schema.
CREATE FUNCTION outbox.maintain() RETURNS TABLE (action text, subject text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
  today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
  p record;
  removed bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(1296126548, 2) THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', outbox.setting('lock_timeout'), true);

  FOR p IN
    SELECT parent.name AS parent, d.day::date AS day
    FROM unnest('{event,attempt}'::text[]) parent(name),
         generate_series(today, today + outbox.setting('partitions_ahead')::int, interval '1 day') d(day)
    WHERE NOT EXISTS (SELECT FROM outbox.partitions() x WHERE x.parent = parent.name AND x.day = d.day::date)
    ORDER BY 2, 1
  LOOP
    subject := p.parent || '_' || to_char(p.day, 'YYYYMMDD');
    BEGIN
      PERFORM outbox.add_partition(p.parent, p.day);
      action := 'created';
    EXCEPTION WHEN lock_not_available THEN
      action := 'postponed (locked)';
    END;
    RETURN NEXT;
  END LOOP;

  FOR p IN
    SELECT x.parent, x.partition, x.day FROM outbox.partitions() x
    WHERE x.day < today - (extract(epoch FROM outbox.setting(x.parent || '_retention')::interval) / 86400)::int
    ORDER BY x.day
  LOOP
    subject := p.partition;
    BEGIN
      IF p.parent = 'event' AND outbox.partition_needed(p.partition, p.day) THEN
        action := 'kept (still needed)';
      ELSE
        EXECUTE format('DROP TABLE outbox.%I', p.partition);
        action := 'dropped';
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      action := 'postponed (locked)';
    END;
    RETURN NEXT;
  END LOOP;

  DELETE FROM outbox.dead_letter WHERE died_at < clock_timestamp() - outbox.setting('dead_letter_retention')::interval;
  GET DIAGNOSTICS removed = ROW_COUNT;
  IF removed > 0 THEN
    action := 'deleted'; subject := removed || ' old dead letters';
    RETURN NEXT;
  END IF;
  DELETE FROM outbox.position
  WHERE id <= (SELECT max(id) FROM outbox.position) - outbox.setting('position_rows')::bigint;
END $$;

-- Makes a restored copy dispatchable. `from_where`: 'now' (nothing from before is ever sent: what waited becomes dead
-- letters, reason discarded) or 'last_cut' (goes on exactly where the original stood when the copy was made).
-- Transaction ids of the original mean nothing here and would collide with this cluster's, so the log is restamped: this
-- is the one place that updates events. Returns how many events will be cut anew.
CREATE FUNCTION outbox.reanchor(from_where text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last outbox.position;
  pending bigint := 0;
BEGIN
  IF from_where NOT IN ('now', 'last_cut') OR from_where IS NULL THEN
    RAISE EXCEPTION 'say from where: outbox.reanchor(''now'') or outbox.reanchor(''last_cut'')'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(1296126548, 0);
  LOCK TABLE outbox.event IN EXCLUSIVE MODE;
  SELECT * INTO STRICT last FROM outbox.position ORDER BY id DESC LIMIT 1;
  PERFORM outbox.give_back(d.id, '{}', '{}') FROM outbox.dispatcher d;
  DELETE FROM outbox.dispatcher;
  DELETE FROM outbox.witness;
  IF from_where = 'now' THEN
    INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, key, payload, metadata, created_at, attempts, reason, last_status, last_error)
    SELECT d.event_id, d.endpoint_id, ep.url, e.type, e.tenant, e.key, e.payload, e.metadata, e.created_at, d.attempts, 'discarded', d.last_status, d.last_error
    FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id JOIN outbox.endpoint ep ON ep.id = d.endpoint_id
    ON CONFLICT DO NOTHING;
    DELETE FROM outbox.delivery;
    UPDATE outbox.event SET tx = '3';
  ELSE
    -- 3 is the first normal transaction id: older than any snapshot to come.
    UPDATE outbox.event e SET tx = CASE
      WHEN pg_visible_in_snapshot(e.tx, last.done)
        OR (pg_visible_in_snapshot(e.tx, last.target) AND (e.tx, e.id) <= (last.after_tx, last.after_id)) THEN '3'::xid8
      ELSE pg_current_xact_id() END;
    SELECT count(*) INTO pending FROM outbox.event WHERE tx = pg_current_xact_id();
  END IF;
  UPDATE outbox.subscription SET since = NULL;
  INSERT INTO outbox.position (done, target, events) VALUES (pg_current_snapshot(), pg_current_snapshot(), 0);
  UPDATE outbox.anchor a SET system_identifier = c.system_identifier, database_oid = d.oid, anchored_at = clock_timestamp()
  FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
  RETURN pending;
END $$;

SELECT * FROM outbox.maintain();
COMMIT;
