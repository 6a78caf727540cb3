-- Martlet 0006: what waits, and in which order: keys of ordered endpoints.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(6, 'order');

-- Writes pairs to outbox.delivery, in the order given. A key's row is `ready` if no other row of that key waits before it,
-- and no dead letter holds the key. `places`: where a row takes up its old place in its key rather than the last one (null:
-- nowhere); that is what a dead letter does that held its key.
-- The endpoint's lock is what keeps a key awake: without it a record could remove the predecessor, and not see the
-- successor, between our looking for the one and our writing the other.
-- Indexes: delivery_pkey, delivery_key, dead_letter_hold.
CREATE FUNCTION outbox.park(event_ids uuid[], endpoint_ids bigint[], keys text[], due timestamptz[], places bigint[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1296126550, l.number)
  FROM (SELECT DISTINCT outbox.lock_number(u.endpoint) AS number
        FROM unnest(endpoint_ids, keys) u(endpoint, key) WHERE u.key IS NOT NULL ORDER BY 1) l;
  IF places IS NOT NULL THEN  -- first, so that the others see them
    INSERT INTO outbox.delivery (event_id, endpoint_id, key, seq, ready, due_at)
    SELECT u.event, u.endpoint, u.key, u.place,
           row_number() OVER (PARTITION BY u.endpoint, u.key ORDER BY u.place) = 1
             AND NOT EXISTS (SELECT FROM outbox.delivery d
                             WHERE d.endpoint_id = u.endpoint AND d.key = u.key AND d.seq < u.place OFFSET 0)
             AND NOT EXISTS (SELECT FROM outbox.dead_letter l
                             WHERE l.endpoint_id = u.endpoint AND l.key = u.key AND l.seq < u.place OFFSET 0),
           u.due
    FROM unnest(event_ids, endpoint_ids, keys, due, places) u(event, endpoint, key, due, place)
    WHERE u.place IS NOT NULL
    ON CONFLICT (event_id, endpoint_id) DO NOTHING;
  END IF;
  INSERT INTO outbox.delivery (event_id, endpoint_id, key, ready, due_at)
  SELECT u.event, u.endpoint, u.key,
         u.key IS NULL OR (row_number() OVER (PARTITION BY u.endpoint, u.key ORDER BY u.ord) = 1
           -- OFFSET 0: a probe per row, never a hash of the whole table
           AND NOT EXISTS (SELECT FROM outbox.delivery d WHERE d.endpoint_id = u.endpoint AND d.key = u.key OFFSET 0)
           AND NOT EXISTS (SELECT FROM outbox.dead_letter l
                           WHERE l.endpoint_id = u.endpoint AND l.key = u.key AND l.seq IS NOT NULL OFFSET 0)),
         u.due
  FROM unnest(event_ids, endpoint_ids, keys, due, places) WITH ORDINALITY u(event, endpoint, key, due, place, ord)
  WHERE u.place IS NULL
  ORDER BY u.ord
  ON CONFLICT (event_id, endpoint_id) DO NOTHING;
END $$;

-- The lowest id of what is left of a target after (after_tx, after_id): of keys that a row lock keeps in order, nothing up
-- to it has a predecessor there. Null if nothing is left.
--
-- Not all that is left is looked at. Were there a predecessor of an event e further on, each transaction in between would
-- have begun before that predecessor was committed, hence before e was inserted, and have published only after e: it was
-- open at that moment. No more transactions than there are connections can be; so many first ids, and one, are enough.
-- Index: event_tx_id, a probe per transaction.
CREATE FUNCTION outbox.order_horizon(done pg_snapshot, target pg_snapshot, after_tx xid8, after_id uuid) RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
  open_at_most int := current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int;
  omega CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  lowest uuid;
  low_tx xid8 := after_tx;
  low_id uuid := after_id;
  tx xid8;
  id uuid;
BEGIN
  -- The rest of those that were in progress in `done`.
  SELECT e.id INTO lowest
  FROM pg_snapshot_xip(done) l(tx) CROSS JOIN LATERAL (
    SELECT e.id FROM outbox.event e
    WHERE e.tx = l.tx AND e.id > CASE WHEN l.tx = after_tx THEN after_id ELSE '00000000-0000-0000-0000-000000000000' END
    ORDER BY e.id LIMIT 1) e
  WHERE l.tx >= after_tx AND pg_visible_in_snapshot(l.tx, target)
  ORDER BY e.id LIMIT 1;
  IF after_tx < pg_snapshot_xmax(done) THEN
    low_tx := (pg_snapshot_xmax(done)::text::bigint - 1)::text::xid8;
    low_id := omega;
  END IF;
  LOOP
    SELECT e.tx, e.id INTO tx, id FROM outbox.event e
    WHERE (e.tx, e.id) > (low_tx, low_id) AND e.tx < pg_snapshot_xmax(target) ORDER BY e.tx, e.id LIMIT 1;
    EXIT WHEN tx IS NULL;
    IF pg_visible_in_snapshot(tx, target) THEN
      lowest := least(lowest, id);
      open_at_most := open_at_most - 1;
      EXIT WHEN open_at_most < 0;
    END IF;
    low_tx := tx;
    low_id := omega;
  END LOOP;
  RETURN lowest;
END $$;

-- The lowest id among what is set aside; null if nothing is.
-- Index: delivery_set_aside.
CREATE FUNCTION outbox.first_set_aside() RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
  RETURN (SELECT d.event_id FROM outbox.delivery d WHERE NOT d.ready AND d.key IS NULL ORDER BY d.event_id LIMIT 1);
END $$;

-- Parks what was set aside, the lowest ids first, now that all that may come before it is parked. Returns the endpoints
-- concerned.
-- Indexes: delivery_set_aside, delivery_pkey, event_pkey, endpoint_pkey.
CREATE FUNCTION outbox.settle(max_rows int) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
  events uuid[]; endpoints bigint[]; keys text[]; due timestamptz[];
BEGIN
  SELECT array_agg(d.event_id ORDER BY d.event_id, d.endpoint_id), array_agg(d.endpoint_id ORDER BY d.event_id, d.endpoint_id),
         array_agg(CASE WHEN ep.ordered THEN e.key END ORDER BY d.event_id, d.endpoint_id),
         array_agg(d.due_at ORDER BY d.event_id, d.endpoint_id)
  INTO events, endpoints, keys, due
  FROM (SELECT d.event_id, d.endpoint_id, d.due_at FROM outbox.delivery d
        WHERE NOT d.ready AND d.key IS NULL ORDER BY d.event_id, d.endpoint_id LIMIT max_rows) d
  LEFT JOIN LATERAL (SELECT e.key FROM outbox.event e WHERE e.id = d.event_id OFFSET 0) e ON true
  LEFT JOIN LATERAL (SELECT ep.ordered FROM outbox.endpoint ep WHERE ep.id = d.endpoint_id OFFSET 0) ep ON true;
  IF events IS NULL THEN
    RETURN '{}';
  END IF;
  DELETE FROM outbox.delivery d USING unnest(events, endpoints) u(event, endpoint)
  WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint;
  PERFORM outbox.park(events, endpoints, keys, due);
  RETURN ARRAY(SELECT DISTINCT u.id FROM unnest(endpoints) u(id) ORDER BY 1);
END $$;

-- Makes the first row of each key after a place `ready`, unless a dead letter holds the key. The caller holds the
-- endpoint's lock.
-- Due now at the earliest: what a claim has passed by it does not look at again soon.
-- Indexes: delivery_key, from the place on, so that dead entries before it are not walked; delivery_pkey, dead_letter_hold.
CREATE FUNCTION outbox.wake(endpoint_ids bigint[], keys text[], places bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
  UPDATE outbox.delivery d SET ready = true, due_at = greatest(d.due_at, clock_timestamp())
  FROM unnest(endpoint_ids, keys, places) k(endpoint, key, place)
  CROSS JOIN LATERAL (
    SELECT n.event_id, n.seq FROM outbox.delivery n
    WHERE n.endpoint_id = k.endpoint AND n.key = k.key AND n.seq > k.place ORDER BY n.seq LIMIT 1) n
  WHERE d.event_id = n.event_id AND d.endpoint_id = k.endpoint AND NOT d.ready
    AND NOT EXISTS (SELECT FROM outbox.dead_letter l
                    WHERE l.endpoint_id = k.endpoint AND l.key = k.key AND l.seq < n.seq OFFSET 0);
END $$;

-- What waited behind a dead letter does not grow old by it: the age at which it would be given up counts from now.
CREATE FUNCTION outbox.forgive_waiting(endpoint_ids bigint[], keys text[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  UPDATE outbox.delivery d SET created_at = clock_timestamp()
  FROM unnest(endpoint_ids, keys) k(endpoint, key) WHERE d.endpoint_id = k.endpoint AND d.key = k.key
$$;

-- Brings what waits for an endpoint in step with its `ordered` and `on_dead_letter`, as they are now.
-- Not ordered any more: everything may be sent at once. Ordered from now on: what waits is put in the order in which it was
-- cut; what is being cut or sent at that very moment is not. Dead letters hold no key any more: the next of each may be sent.
-- Locks: the endpoint's, and so its records and the cuts of its keys.
CREATE FUNCTION outbox.reorder(endpoint bigint, is_ordered boolean, on_dead_letter text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  held_keys text[];
  held_places bigint[];
BEGIN
  PERFORM pg_advisory_xact_lock(1296126550, outbox.lock_number(reorder.endpoint));
  IF NOT is_ordered OR on_dead_letter <> 'hold' THEN
    SELECT array_agg(l.key), array_agg(l.seq) INTO held_keys, held_places
    FROM outbox.dead_letter l WHERE l.endpoint_id = reorder.endpoint AND l.seq IS NOT NULL;
    UPDATE outbox.dead_letter l SET seq = NULL WHERE l.endpoint_id = reorder.endpoint AND l.seq IS NOT NULL;
    IF held_keys IS NOT NULL THEN
      PERFORM outbox.forgive_waiting(array_fill(reorder.endpoint, ARRAY[cardinality(held_keys)]), held_keys);
      PERFORM outbox.wake(array_fill(reorder.endpoint, ARRAY[cardinality(held_keys)]), held_keys, held_places);
    END IF;
  END IF;
  IF is_ordered THEN
    UPDATE outbox.delivery d SET key = o.key, ready = o.is_first
    FROM (SELECT d.event_id, e.key, row_number() OVER (PARTITION BY e.key ORDER BY d.seq) = 1
                   AND NOT EXISTS (SELECT FROM outbox.delivery k WHERE k.endpoint_id = reorder.endpoint AND k.key = e.key)
                   AND NOT EXISTS (SELECT FROM outbox.dead_letter l
                                   WHERE l.endpoint_id = reorder.endpoint AND l.key = e.key AND l.seq IS NOT NULL) AS is_first
          FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id
          WHERE d.endpoint_id = reorder.endpoint AND d.key IS NULL AND d.ready AND d.dispatcher_id IS NULL AND e.key IS NOT NULL) o
    WHERE d.endpoint_id = reorder.endpoint AND d.event_id = o.event_id AND d.dispatcher_id IS NULL;
  ELSE
    UPDATE outbox.delivery d SET ready = true, key = NULL,
      due_at = CASE WHEN d.ready THEN d.due_at ELSE greatest(d.due_at, clock_timestamp()) END
    WHERE d.endpoint_id = reorder.endpoint AND d.key IS NOT NULL;
  END IF;
END $$;
COMMIT;
