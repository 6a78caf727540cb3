-- Martlet 0005: claim, record, recover: what happens to a delivery after the cut.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(5, 'deliver');

-- Rate limits: a token bucket per limited endpoint, shared by all dispatchers. A claim takes a token for each delivery, and
-- at most the tokens there are. They come in at the endpoint's `rate_limit` a second; a full bucket holds one, and those of
-- a quarter of a second: enough that nothing is lost between two claims, and little enough that of any ten seconds no
-- more go out than 5 % above the limit (or one delivery, below 4 a second).
--
-- All that is kept is one number, the time in microseconds since 1970 at which the bucket was last empty, or would have
-- been. The number of tokens follows from the limit of the moment, so a new limit counts at once. The number is the value
-- of a sequence, outbox.rate_<endpoint>: setting it writes in place, where updating a row with every claim would leave
-- a dead version each time for as long as somebody's transaction stays open. What a transaction that rolls back has
-- taken stays taken: too few go out then, never too many.
-- outbox.spend writes it under an advisory lock that is only tried: who does not get it comes again in a moment.

CREATE FUNCTION outbox.bucket_tokens(rate float8, empty_at bigint, now_at bigint) RETURNS float8
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN least(1 + rate / 4, greatest(now_at - empty_at, 0) * rate / 1000000);
END $$;

-- When the bucket was empty, after `taken` have been taken out of it. Rounded up: nobody gets more than there was. A clock
-- that was set back has nobody wait for it.
CREATE FUNCTION outbox.bucket_after(rate float8, empty_at bigint, now_at bigint, taken int) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN greatest(least(empty_at, now_at), now_at - ceil(1000000.0 / rate)::bigint - 250000) + ceil(taken * 1000000.0 / rate)::bigint;
END $$;

-- Milliseconds until there are so many tokens, or the bucket is full.
CREATE FUNCTION outbox.bucket_wait_ms(rate float8, empty_at bigint, now_at bigint, wanted float8) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ceil(greatest(least(wanted, 1 + rate / 4) - outbox.bucket_tokens(rate, empty_at, now_at), 0) * 1000 / rate);
END $$;

CREATE FUNCTION outbox.now_us() RETURNS bigint LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS
$$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint $$;

-- When an endpoint's bucket was empty; one never used is full. Null if it has none.
CREATE FUNCTION outbox.bucket(endpoint bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE at CONSTANT regclass := to_regclass('outbox.rate_' || endpoint);
BEGIN
  RETURN CASE WHEN at IS NOT NULL THEN coalesce(pg_sequence_last_value(at), 0) END;
END $$;

-- Takes tokens out of an endpoint's bucket, of which the caller holds the lock and has seen that there are so many. Returns
-- in how many milliseconds it is worth while to come again: when there is one token, or those of a twentieth of a second,
-- or as many as are `wanted`. Null if fewer were taken than were `allowed`: then nothing more is due.
CREATE FUNCTION outbox.spend(endpoint bigint, taken int, allowed int, wanted int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rate CONSTANT float8 := (SELECT e.rate_limit FROM outbox.endpoint e WHERE e.id = spend.endpoint);
  empty_at bigint := outbox.bucket(endpoint);
  now_at CONSTANT bigint := outbox.now_us();
BEGIN
  IF rate IS NULL THEN
    RETURN NULL;
  ELSIF empty_at IS NULL THEN
    RETURN 1000;
  END IF;
  IF taken > 0 THEN
    empty_at := setval('outbox.rate_' || endpoint, outbox.bucket_after(rate, empty_at, now_at, taken));
  END IF;
  RETURN CASE WHEN taken >= allowed THEN
    outbox.bucket_wait_ms(rate, empty_at, now_at, greatest(1, least(wanted, rate / 20))) END;
END $$;

-- Endpoints that may be sent to and have deliveries waiting, with the time until the first is due (0 or less: now).
-- An endpoint behind an open circuit is due when its probe is, one with a rate limit when there is a token.
-- Index: delivery_due, one probe per endpoint that has something waiting, from one endpoint's first to the next one's;
-- endpoints without cost nothing.
CREATE FUNCTION outbox.waiting() RETURNS TABLE (endpoint_id bigint, due_in_ms bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
  WITH RECURSIVE first AS (
    (SELECT d.endpoint_id, d.due_at FROM outbox.delivery d
     WHERE d.ready AND d.dispatcher_id IS NULL ORDER BY d.endpoint_id, d.due_at LIMIT 1)
    UNION ALL
    SELECT next.endpoint_id, next.due_at FROM first f CROSS JOIN LATERAL (
      SELECT d.endpoint_id, d.due_at FROM outbox.delivery d
      WHERE d.ready AND d.dispatcher_id IS NULL AND d.endpoint_id > f.endpoint_id
      ORDER BY d.endpoint_id, d.due_at LIMIT 1) next
  )
  SELECT e.id, greatest(extract(epoch FROM least(greatest(first.due_at, h.probe_at), clock_timestamp() + interval '1 year')
                                         - clock_timestamp()) * 1000,
                        CASE WHEN e.rate_limit IS NOT NULL
                          THEN outbox.bucket_wait_ms(e.rate_limit, outbox.bucket(e.id), outbox.now_us(), 1) END, 0)::bigint
  FROM first
  JOIN outbox.endpoint e ON e.id = first.endpoint_id AND e.state = 'enabled'
  LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id AND h.state <> 'closed'
$$;

-- Claims deliveries that are due: of each endpoint named at most its `slots`, the longest due first, skipping what others
-- are claiming. `floors`: where the last claim got to; everything due before was taken, so the dead index entries there
-- need not be walked again (null: look at everything). An endpoint behind an open circuit gives one delivery, the probe,
-- when its time has come. Of one with a rate limit no more than there are tokens, and than it takes at a time. Of all
-- together at most `max_bytes` of payload, but always one. The age returned counts from when the delivery began to wait, or
-- from its event's `not_before`.
-- After the deliveries comes a row with event_id null for each endpoint where the rate limit may have left something that
-- is due: age_ms says in how many milliseconds to come again.
-- Locks: the dispatcher's lease, shared; the rows claimed; of a rate-limited endpoint the bucket, if nobody has it.
-- Indexes: delivery_due, delivery_pkey, event_pkey, endpoint_pkey.
CREATE FUNCTION outbox.claim(
  dispatcher bigint, endpoints bigint[], slots int[], floors timestamptz[], max_bytes bigint DEFAULT 16777216, resyncs bigint DEFAULT NULL)
RETURNS TABLE (
  event_id uuid, endpoint_id bigint, endpoint_version bigint, attempts int, due_at timestamptz, age_ms bigint,
  type text, tenant text, key text, created_at timestamptz, payload jsonb, metadata jsonb
)
LANGUAGE plpgsql ROWS 100
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  any_ordered boolean;
  limited bigint[];  -- those of the endpoints that have a rate limit
  buckets bigint[];  -- of these, those whose bucket is ours until the end of this transaction
  tokens int[];      -- what is in them
  probed bigint[];
BEGIN
  PERFORM outbox.hold_lease(dispatcher, resyncs);
  SELECT bool_or(e.ordered), array_agg(e.id) FILTER (WHERE e.rate_limit IS NOT NULL AND e.state = 'enabled')
  INTO any_ordered, limited FROM outbox.endpoint e WHERE e.id = ANY (endpoints);
  -- A claim where order matters waits for the disk, and so for the record before it: a crash that took either back would
  -- let an old delivery be sent again after its successor.
  IF any_ordered THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  IF limited IS NOT NULL THEN
    buckets := ARRAY(SELECT l.id FROM unnest(limited) l(id) WHERE pg_try_advisory_xact_lock(1296126552, outbox.lock_number(l.id)));
    -- After the lock, in a fresh snapshot: an endpoint that is still there stays, and so does its bucket.
    SELECT array_agg(b.id), array_agg(b.tokens) INTO buckets, tokens
    FROM (SELECT e.id, least(floor(outbox.bucket_tokens(e.rate_limit, outbox.bucket(e.id), outbox.now_us())), e.max_in_flight)::int AS tokens
          FROM outbox.endpoint e WHERE e.id = ANY (buckets)) b;
  END IF;
  -- One of the dispatchers that see the probe due gets to make it; if that one is lost, the next may, half a minute on.
  WITH due AS (
    SELECT h.endpoint_id, e.timeout FROM outbox.endpoint_health h JOIN outbox.endpoint e ON e.id = h.endpoint_id
    WHERE h.endpoint_id = ANY (endpoints) AND h.state <> 'closed' AND h.probe_at <= clock_timestamp() AND e.state = 'enabled'
      AND (e.rate_limit IS NULL OR tokens[array_position(buckets, e.id)] >= 1)
      AND EXISTS (SELECT FROM outbox.delivery d WHERE d.endpoint_id = h.endpoint_id AND d.ready
                  AND d.dispatcher_id IS NULL AND d.due_at <= clock_timestamp())
    ORDER BY h.endpoint_id FOR UPDATE OF h SKIP LOCKED
  ), probing AS (
    UPDATE outbox.endpoint_health h SET state = 'half_open', probe_at = clock_timestamp() + due.timeout + interval '30 s'
    FROM due WHERE h.endpoint_id = due.endpoint_id RETURNING h.endpoint_id
  ) SELECT array_agg(p.endpoint_id) INTO probed FROM probing p;

  RETURN QUERY
    WITH wanted AS MATERIALIZED (
      SELECT w.id, CASE WHEN w.id = ANY (probed) THEN 1 WHEN e.rate_limit IS NULL THEN w.slots
                        ELSE least(w.slots, tokens[array_position(buckets, e.id)]) END AS slots,
             CASE WHEN w.id = ANY (probed) THEN '-infinity' ELSE coalesce(w.floor, '-infinity') END AS floor
      FROM unnest(endpoints, slots, floors) w(id, slots, floor)
      JOIN outbox.endpoint e ON e.id = w.id
      LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = w.id
      WHERE e.state = 'enabled' AND (coalesce(h.state, 'closed') = 'closed' OR w.id = ANY (probed))
        AND (e.rate_limit IS NULL OR tokens[array_position(buckets, e.id)] >= 1)
    ), picked AS MATERIALIZED (
      SELECT d.event_id, d.endpoint_id, row_number() OVER w AS place, sum(e.bytes) OVER w AS bytes
      FROM wanted w CROSS JOIN LATERAL (
        SELECT d.event_id, d.endpoint_id, d.due_at, d.seq FROM outbox.delivery d
        WHERE d.endpoint_id = w.id AND d.ready AND d.dispatcher_id IS NULL
          AND d.due_at >= w.floor AND d.due_at <= clock_timestamp()
        ORDER BY d.due_at LIMIT w.slots FOR UPDATE SKIP LOCKED) d
      -- A delivery whose event somebody has deleted cannot be sent: the reconciler tells.
      CROSS JOIN LATERAL (
        SELECT CASE WHEN pg_column_size(e.payload) < 1000 THEN 1000 ELSE octet_length(e.payload::text) END AS bytes
        FROM outbox.event e WHERE e.id = d.event_id) e
      WINDOW w AS (ORDER BY d.due_at, d.seq)
    ), claimed AS (
      UPDATE outbox.delivery d SET dispatcher_id = dispatcher FROM picked p
      WHERE d.event_id = p.event_id AND d.endpoint_id = p.endpoint_id AND (p.bytes <= max_bytes OR p.place = 1)
      RETURNING d.event_id, d.endpoint_id, d.attempts, d.due_at, d.seq, d.created_at
    )
    (SELECT c.event_id, c.endpoint_id, ep.version, c.attempts, c.due_at,
           (extract(epoch FROM clock_timestamp() - greatest(c.created_at, e.not_before)) * 1000)::bigint,
           e.type, e.tenant, e.key, e.created_at, e.payload, e.metadata
    FROM claimed c
    JOIN outbox.endpoint ep ON ep.id = c.endpoint_id
    JOIN LATERAL (
      SELECT e.type, e.tenant, e.key, e.created_at, e.not_before, e.payload, e.metadata FROM outbox.event e WHERE e.id = c.event_id
    ) e ON true
    ORDER BY c.due_at, c.seq)
    UNION ALL
    SELECT NULL, l.id, NULL, NULL, NULL, again.ms, NULL, NULL, NULL, NULL, NULL, NULL
    FROM unnest(limited) l(id)
    LEFT JOIN (SELECT c.endpoint_id AS id, count(*)::int AS taken FROM claimed c GROUP BY c.endpoint_id) c ON c.id = l.id
    CROSS JOIN LATERAL (SELECT slots[array_position(endpoints, l.id)] AS slots, tokens[array_position(buckets, l.id)] AS tokens) has
    CROSS JOIN LATERAL (
      SELECT CASE WHEN has.tokens IS NULL THEN 25  -- somebody else is claiming there
                  ELSE outbox.spend(l.id, coalesce(c.taken, 0), least(has.slots, has.tokens), has.slots) END AS ms OFFSET 0) again
    WHERE again.ms IS NOT NULL;
END $$;

-- Writes the outcomes of deliveries, all in one transaction: history; what was delivered leaves outbox.delivery; what
-- failed waits there for `retry_in_ms`; what is given up (`reasons` not null) becomes a dead letter; the successor in an
-- ordered key becomes ready, unless the dead letter holds the key; finished batches are removed; outbox.endpoint_health
-- changes where something failed or recovered; Martlet's own events tell of what was given up, and of endpoints that
-- changed. Returns the endpoints whose circuit or state changed.
--
-- Arrays are parallel, one element per outcome; those that say something about failures only may be empty if there is
-- none. `batch_ids` is null where the delivery was claimed rather than cut. `attempts` is the number of this try, from 1;
-- of a delivery handed back untried, the number of tries so far.
-- `again`: the caller lost its connection during this very call before, and does not know whether it was committed; if it
-- was, nothing is done twice.
--
-- Refuses a dispatcher without a lease. Locks: its lease, shared; its recorder's lock; the rows of endpoints that may have
-- to be disabled; ordered endpoints concerned; rows of endpoint_health. In this order, and each in the order of ids, so that
-- neither two recorders nor a recorder and somebody who changes an endpoint can wait for each other.
-- Indexes: delivery_pkey, delivery_key, event_pkey, batch_pkey, endpoint_pkey, endpoint_health_pkey.
CREATE FUNCTION outbox.record(
  dispatcher bigint, event_ids uuid[], endpoint_ids bigint[], batch_ids bigint[], attempts int[], outcomes text[],
  statuses int[], durations_ms int[], errors text[], responses text[], retry_in_ms bigint[], reasons text[],
  finished_batches bigint[], again boolean DEFAULT false, resyncs bigint DEFAULT NULL
) RETURNS TABLE (endpoint_id bigint, circuit text, state text)
LANGUAGE plpgsql ROWS 1
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  any_claimed CONSTANT boolean := array_position(batch_ids, NULL) IS NOT NULL;
  all_delivered CONSTANT boolean := NOT 'delivered' <> ANY (outcomes);
  dead bigint[];
  doomed bigint[];
  done_endpoints bigint[]; done_keys text[]; done_places bigint[];
BEGIN
  PERFORM outbox.hold_lease(dispatcher, resyncs);
  PERFORM pg_advisory_xact_lock(1296126551, outbox.lock_number(dispatcher));
  IF again AND EXISTS (
    SELECT FROM outbox.attempt a
    WHERE a.event_id = event_ids[1] AND a.endpoint_id = endpoint_ids[1] AND a.attempt = attempts[1]
      AND a.outcome::text = outcomes[1] AND a.dispatcher_id = dispatcher AND a.batch_id IS NOT DISTINCT FROM batch_ids[1]
      AND a.duration_ms IS NOT DISTINCT FROM durations_ms[1])
    -- A claimed delivery may have been claimed before and have come to the same: then we hold it still.
    AND NOT (batch_ids[1] IS NULL AND EXISTS (
      SELECT FROM outbox.delivery d
      WHERE d.event_id = event_ids[1] AND d.endpoint_id = endpoint_ids[1] AND d.dispatcher_id = dispatcher)) THEN
    RETURN;
  END IF;
  IF NOT all_delivered THEN
    doomed := outbox.lock_doomed(endpoint_ids, outcomes, reasons);
  END IF;
  IF any_claimed THEN  -- what belongs to an ordered endpoint was always claimed, never direct
    PERFORM pg_advisory_xact_lock(1296126550, l.number)
    FROM (SELECT DISTINCT outbox.lock_number(e.id) AS number FROM outbox.endpoint e
          WHERE e.id = ANY (endpoint_ids) AND e.ordered ORDER BY 1) l;
  END IF;

  INSERT INTO outbox.attempt (event_id, endpoint_id, batch_id, dispatcher_id, outcome, duration_ms, attempt, status, error, response)
  SELECT u.event, u.endpoint, u.batch, dispatcher, u.outcome::outbox.outcome, u.duration, u.attempt, u.status, u.error, u.response
  FROM unnest(event_ids, endpoint_ids, batch_ids, outcomes, durations_ms, attempts, statuses, errors, responses)
    u(event, endpoint, batch, outcome, duration, attempt, status, error, response);

  IF NOT all_delivered THEN
    INSERT INTO outbox.delivery AS d (event_id, endpoint_id, attempts, due_at, last_status, last_error)
    -- One pair may come twice: handed out, taken back by a crash, and handed out again. One of a deleted endpoint is let go.
    SELECT DISTINCT ON (u.event, u.endpoint)
      u.event, u.endpoint, u.attempt, clock_timestamp() + u.retry * interval '1 ms', u.status, u.error
    FROM unnest(event_ids, endpoint_ids, attempts, outcomes, retry_in_ms, reasons, statuses, errors)
      u(event, endpoint, attempt, outcome, retry, reason, status, error)
    JOIN outbox.endpoint ep ON ep.id = u.endpoint
    WHERE u.outcome <> 'delivered' AND u.reason IS NULL
    ORDER BY u.event, u.endpoint, u.attempt DESC
    ON CONFLICT (event_id, endpoint_id) DO UPDATE SET
      attempts = EXCLUDED.attempts, due_at = EXCLUDED.due_at, dispatcher_id = NULL,
      last_status = coalesce(EXCLUDED.last_status, d.last_status), last_error = coalesce(EXCLUDED.last_error, d.last_error)
      WHERE d.dispatcher_id = dispatcher;

    IF array_remove(reasons, NULL) <> '{}' THEN
      WITH died AS (
        INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, key, payload, metadata, created_at, attempts,
          reason, last_status, last_error, first_attempt_at, seq)
        SELECT u.event, u.endpoint, ep.url, e.type, e.tenant, e.key, e.payload, e.metadata, e.created_at, u.attempt,
          u.reason, u.status, u.error,
          (SELECT min(a.at) FROM outbox.attempt a WHERE a.event_id = u.event AND a.endpoint_id = u.endpoint AND a.outcome = 'failed'),
          (SELECT d.seq FROM outbox.delivery d
           WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint AND d.dispatcher_id = dispatcher AND d.key IS NOT NULL
             AND u.batch IS NULL AND ep.ordered AND ep.on_dead_letter = 'hold')
        FROM unnest(event_ids, endpoint_ids, batch_ids, attempts, reasons, statuses, errors)
          u(event, endpoint, batch, attempt, reason, status, error)
        JOIN outbox.event e ON e.id = u.event
        JOIN outbox.endpoint ep ON ep.id = u.endpoint
        WHERE u.reason IS NOT NULL
        ON CONFLICT (event_id, endpoint_id) DO NOTHING
        RETURNING id
      ) SELECT array_agg(d.id) INTO dead FROM died d;
    END IF;
  END IF;

  IF any_claimed THEN
    WITH finished AS (
      DELETE FROM outbox.delivery d
      USING unnest(event_ids, endpoint_ids, batch_ids, outcomes, reasons) u(event, endpoint, batch, outcome, reason)
      WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint AND d.dispatcher_id = dispatcher
        AND u.batch IS NULL AND (u.outcome = 'delivered' OR u.reason IS NOT NULL)
      RETURNING d.endpoint_id, d.key, d.seq
    ) SELECT array_agg(f.endpoint_id), array_agg(f.key), array_agg(f.seq)
      INTO done_endpoints, done_keys, done_places FROM finished f WHERE f.key IS NOT NULL;
    IF done_keys IS NOT NULL THEN
      PERFORM outbox.wake(done_endpoints, done_keys, done_places);
    END IF;
  END IF;

  IF 'returned' = ANY (outcomes) THEN
    -- Rows are locked in the order of their ids here, too.
    PERFORM FROM outbox.endpoint_health h WHERE h.endpoint_id = ANY (endpoint_ids) ORDER BY h.endpoint_id FOR UPDATE;
    -- A probe that was not sent has told nothing: the next may follow at once.
    UPDATE outbox.endpoint_health h SET probe_at = clock_timestamp()
    WHERE h.state = 'half_open'
      AND h.endpoint_id IN (SELECT u.endpoint FROM unnest(endpoint_ids, outcomes) u(endpoint, outcome) WHERE u.outcome = 'returned');
  END IF;

  DELETE FROM outbox.batch WHERE id = ANY (finished_batches) AND dispatcher_id = dispatcher;

  IF dead IS NOT NULL THEN
    PERFORM outbox.announce_dead_letters(dead);
  END IF;
  RETURN QUERY SELECT * FROM outbox.note_health(endpoint_ids, outcomes, errors, reasons, doomed);
END $$;

-- Endpoints that these outcomes may disable, with their rows locked: those that answered 410, and those that have failed
-- for as long as they may.
-- Index: endpoint_health_pkey, endpoint_pkey.
CREATE FUNCTION outbox.lock_doomed(endpoint_ids bigint[], outcomes text[], reasons text[]) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
  doomed bigint[];
BEGIN
  SELECT array_agg(d.id) INTO doomed FROM (
    SELECT u.endpoint AS id FROM unnest(endpoint_ids, reasons) u(endpoint, reason) WHERE u.reason = 'gone'
    UNION
    SELECT e.id FROM (SELECT DISTINCT u.endpoint AS id FROM unnest(endpoint_ids, outcomes) u(endpoint, outcome)
                      WHERE u.outcome = 'failed') f
    JOIN outbox.endpoint_health h ON h.endpoint_id = f.id
    JOIN outbox.endpoint e ON e.id = f.id
    WHERE e.state = 'enabled' AND h.failing_since <= clock_timestamp() - e.disable_after) d;
  IF doomed IS NOT NULL THEN
    PERFORM FROM outbox.endpoint e WHERE e.id = ANY (doomed) ORDER BY e.id FOR NO KEY UPDATE OF e;
  END IF;
  RETURN doomed;
END $$;

-- The circuit breaker. It opens after `failure_threshold` failures in a row; or when, in a window of `failure_window` that
-- began with a failure, twice as many outcomes have come in and the part of failures is `failure_rate` or more.
-- While it is open one probe is due at a time, each after a pause as long as the circuit has been open so far, between 5 s
-- and 5 min. It closes with a success. (Where the rate opened it, with one while a probe is out: others may have been
-- under way already.) After `disable_after` of nothing but failures, or a 410, the endpoint is disabled, if it is among the
-- `doomed` whose rows the caller has locked.
-- Returns the endpoints that changed, and tells of the changes in Martlet's own events.
-- Locks: the rows of endpoint_health.
-- Index: endpoint_health_pkey, endpoint_pkey. A healthy endpoint's success reads one index page and writes nothing.
CREATE FUNCTION outbox.note_health(endpoint_ids bigint[], outcomes text[], errors text[], reasons text[], doomed bigint[])
RETURNS TABLE (endpoint_id bigint, circuit text, state text)
LANGUAGE plpgsql ROWS 1
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  failing bigint[];
  gone bigint[];
  disabled bigint[];
  noted bigint[]; before text[]; after text[];
BEGIN
  SELECT array_agg(DISTINCT u.endpoint ORDER BY u.endpoint) INTO failing
  FROM unnest(endpoint_ids, outcomes) u(endpoint, outcome) WHERE u.outcome = 'failed';
  IF 'gone' = ANY (reasons) THEN
    gone := ARRAY(SELECT u.endpoint FROM unnest(endpoint_ids, reasons) u(endpoint, reason) WHERE u.reason = 'gone');
  END IF;
  IF failing IS NULL AND gone IS NULL AND NOT EXISTS (
    SELECT FROM (SELECT DISTINCT u.id FROM unnest(endpoint_ids) u(id)) u
    JOIN outbox.endpoint_health h ON h.endpoint_id = u.id
    WHERE h.consecutive_failures > 0 OR h.state <> 'closed' OR h.window_started_at IS NOT NULL) THEN
    RETURN;
  END IF;
  -- Rows are locked in the order of their ids, so that two recorders cannot wait for each other.
  INSERT INTO outbox.endpoint_health (endpoint_id)
  SELECT e.id FROM unnest(failing) f JOIN outbox.endpoint e ON e.id = f  -- unless it was deleted meanwhile
  ORDER BY e.id FOR KEY SHARE OF e ON CONFLICT (endpoint_id) DO NOTHING;
  PERFORM FROM outbox.endpoint_health h WHERE h.endpoint_id = ANY (endpoint_ids) ORDER BY h.endpoint_id FOR UPDATE;

  WITH tally AS (
    SELECT u.endpoint, count(*) FILTER (WHERE u.outcome = 'failed')::int AS failed,
           count(*) FILTER (WHERE u.outcome = 'delivered')::int AS succeeded,
           max(u.ord) FILTER (WHERE u.outcome = 'delivered') AS last_success,
           min(u.ord) FILTER (WHERE u.outcome = 'failed') AS first_failure,
           max(u.ord) FILTER (WHERE u.outcome = 'failed') AS last_failure
    FROM unnest(endpoint_ids, outcomes) WITH ORDINALITY u(endpoint, outcome, ord)
    WHERE u.outcome IN ('delivered', 'failed') GROUP BY u.endpoint
  ), counted AS (
    SELECT t.endpoint, t.failed, t.succeeded, t.first_failure, errors[t.last_failure] AS error,
           CASE WHEN t.last_success IS NULL THEN h.consecutive_failures + t.failed
                ELSE (SELECT count(*)::int FROM unnest(endpoint_ids, outcomes) WITH ORDINALITY u(endpoint, outcome, ord)
                      WHERE u.endpoint = t.endpoint AND u.outcome = 'failed' AND u.ord > t.last_success) END AS run,
           h.state AS was, h.state <> 'closed' AND h.window_started_at IS NOT NULL AS was_by_rate,
           e.failure_threshold AS threshold, e.failure_rate AS rate,
           coalesce(h.window_started_at > clock_timestamp() - e.failure_window, false) AS goes_on
    FROM tally t JOIN outbox.endpoint_health h ON h.endpoint_id = t.endpoint JOIN outbox.endpoint e ON e.id = t.endpoint
  ), weighed AS (
    SELECT c.*,
           CASE WHEN c.rate IS NULL THEN NULL WHEN c.goes_on THEN h.window_started_at
                WHEN c.failed > 0 THEN clock_timestamp() END AS began,
           c.failed + CASE WHEN c.goes_on THEN h.window_failed ELSE 0 END AS bad,
           CASE WHEN c.goes_on THEN h.window_succeeded + c.succeeded
                ELSE (SELECT count(*)::int FROM unnest(endpoint_ids, outcomes) WITH ORDINALITY u(endpoint, outcome, ord)
                      WHERE u.endpoint = c.endpoint AND u.outcome = 'delivered' AND u.ord > c.first_failure) END AS good
    FROM counted c JOIN outbox.endpoint_health h ON h.endpoint_id = c.endpoint
  ), changed AS (
    UPDATE outbox.endpoint_health h SET
      consecutive_failures = w.run,
      last_error = CASE WHEN w.failed > 0 THEN w.error ELSE h.last_error END,
      last_failure_at = CASE WHEN w.failed > 0 THEN clock_timestamp() ELSE h.last_failure_at END,
      failing_since = CASE WHEN w.run = 0 THEN NULL WHEN w.succeeded > 0 THEN clock_timestamp()
                           ELSE coalesce(h.failing_since, clock_timestamp()) END,
      state = now.state,
      opened_at = CASE WHEN now.state = 'open' THEN coalesce(h.opened_at, clock_timestamp()) END,
      probe_at = CASE WHEN now.state <> 'open' THEN NULL
                      WHEN h.state = 'open' THEN h.probe_at
                      ELSE clock_timestamp() + least(greatest(clock_timestamp() - h.opened_at, interval '5 s'), interval '5 min') END,
      window_started_at = CASE WHEN now.is_weighing THEN w.began WHEN now.is_kept THEN h.window_started_at END,
      window_failed = CASE WHEN now.is_weighing THEN w.bad WHEN now.is_kept THEN h.window_failed ELSE 0 END,
      window_succeeded = CASE WHEN now.is_weighing THEN w.good WHEN now.is_kept THEN h.window_succeeded ELSE 0 END
    FROM weighed w
    CROSS JOIN LATERAL (SELECT CASE
        WHEN w.was = 'closed' THEN CASE
          WHEN w.run >= w.threshold THEN 'open'
          WHEN w.began IS NOT NULL AND w.bad + w.good >= 2::bigint * w.threshold AND w.bad >= w.rate * (w.bad + w.good) THEN 'open'
          ELSE 'closed' END
        WHEN w.succeeded > 0 AND w.run < w.threshold AND (w.was = 'half_open' OR NOT w.was_by_rate) THEN 'closed'
        ELSE 'open' END AS state) verdict
    CROSS JOIN LATERAL (SELECT verdict.state, w.was = 'closed' AND w.run < w.threshold AND w.began IS NOT NULL AS is_weighing,
                               w.was <> 'closed' AND verdict.state = 'open' AS is_kept) now
    WHERE h.endpoint_id = w.endpoint
      AND (w.failed > 0 OR h.consecutive_failures > 0 OR h.state <> 'closed' OR h.window_started_at IS NOT NULL)
    RETURNING h.endpoint_id, h.state, w.was
  )
  SELECT array_agg(x.endpoint_id ORDER BY x.endpoint_id), array_agg(x.was ORDER BY x.endpoint_id),
         array_agg(x.state ORDER BY x.endpoint_id) INTO noted, before, after FROM changed x;

  IF doomed IS NOT NULL THEN
    WITH off AS (
      UPDATE outbox.endpoint e SET state = 'disabled', disabled_at = clock_timestamp(), disabled_because =
        CASE WHEN e.id = ANY (gone) THEN 'it answered 410 (gone)'
             ELSE format('nothing but failures came of it since %s', h.failing_since) END
      FROM outbox.endpoint_health h
      WHERE h.endpoint_id = e.id AND e.id = ANY (doomed)
        AND (e.id = ANY (gone) AND e.state <> 'disabled'
             OR e.state = 'enabled' AND h.failing_since <= clock_timestamp() - e.disable_after)
      RETURNING e.id
    ) SELECT array_agg(o.id ORDER BY o.id) INTO disabled FROM off o;
  END IF;
  PERFORM outbox.announce('martlet.endpoint.failing', ARRAY(
    SELECT u.id FROM unnest(noted, before, after) u(id, was, now) WHERE u.was = 'closed' AND u.now = 'open' ORDER BY u.id));
  PERFORM outbox.announce('martlet.endpoint.recovered', ARRAY(
    SELECT u.id FROM unnest(noted, before, after) u(id, was, now) WHERE u.was <> 'closed' AND u.now = 'closed' ORDER BY u.id));
  PERFORM outbox.announce('martlet.endpoint.disabled', disabled);
  RETURN QUERY
    SELECT u.id, u.now, e.state FROM unnest(noted, before, after) u(id, was, now) JOIN outbox.endpoint e ON e.id = u.id
    WHERE u.now <> u.was OR e.state <> 'enabled';
END $$;

-- Whether anybody of this tenant wants to know. Index: subscription_pkey.
CREATE FUNCTION outbox.is_wanted(type text, tenant text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM unnest(outbox.patterns(type)) p(pattern)
                 JOIN outbox.subscription s ON s.tenant = is_wanted.tenant AND s.pattern = p.pattern);
END $$;

-- Martlet's own events, published in the very transaction of what they tell, to the endpoint's tenant, if anybody there is
-- subscribed to them. Their key is the endpoint, so that ordered subscribers see its changes in their order.
CREATE FUNCTION outbox.announce(type text, endpoint_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF endpoint_ids <> '{}' THEN
    INSERT INTO outbox.event (type, tenant, key, payload)
    SELECT announce.type, e.tenant, e.id::text, jsonb_build_object('endpoint', e.id, 'url', e.url, 'tenant', e.tenant,
      'state', e.state, 'circuit', coalesce(h.state, 'closed'), 'failing_since', h.failing_since,
      'consecutive_failures', coalesce(h.consecutive_failures, 0), 'last_error', h.last_error)
      || CASE WHEN e.disabled_because IS NULL THEN '{}' ELSE jsonb_build_object('disabled_because', e.disabled_because) END
    FROM outbox.endpoint e LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id
    WHERE e.id = ANY (endpoint_ids) AND outbox.is_wanted(announce.type, e.tenant)
    ORDER BY e.id;
  END IF;
END $$;

-- The same of dead letters; of those of Martlet's own events nobody is told, or telling would never end.
CREATE FUNCTION outbox.announce_dead_letters(dead_letters bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tenants text[];
BEGIN
  SELECT array_agg(t.tenant) INTO tenants
  FROM (SELECT DISTINCT e.tenant FROM outbox.dead_letter l JOIN outbox.endpoint e ON e.id = l.endpoint_id
        WHERE l.id = ANY (dead_letters) AND l.type NOT LIKE 'martlet.%') t
  WHERE outbox.is_wanted('martlet.endpoint.dead_letter', t.tenant);
  IF tenants IS NOT NULL THEN
    INSERT INTO outbox.event (type, tenant, key, payload)
    SELECT 'martlet.endpoint.dead_letter', e.tenant, e.id::text, jsonb_build_object('dead_letter', l.id, 'event', l.event_id,
      'type', l.type, 'key', l.key, 'endpoint', e.id, 'url', l.url, 'tenant', e.tenant, 'reason', l.reason,
      'attempts', l.attempts, 'last_status', l.last_status, 'last_error', l.last_error, 'holds_key', l.seq IS NOT NULL)
    FROM outbox.dead_letter l JOIN outbox.endpoint e ON e.id = l.endpoint_id
    WHERE l.id = ANY (dead_letters) AND l.type NOT LIKE 'martlet.%' AND e.tenant = ANY (tenants)
    ORDER BY l.id;
  END IF;
END $$;

-- Makes what a dispatcher was handed available again, except the pairs named: pairs of its batches without a recorded
-- outcome become rows of outbox.delivery, due now; its claimed deliveries are unclaimed. Returns how many pairs that was.
-- `kept_batches`: the batch that each of those is held by, null if it was claimed; held otherwise than the tables say, it is
-- not kept. (Null as a whole: however it is held.)
-- The caller holds the dispatcher's lock exclusively.
-- Indexes: attempt_event, delivery_claimed, delivery_pkey; outbox.batch is small.
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
    SELECT b.id AS batch_id, u.event, u.endpoint, k.event IS NOT NULL AS is_kept
    FROM outbox.batch b CROSS JOIN LATERAL unnest(b.event_ids, b.endpoint_ids) u(event, endpoint)
    LEFT JOIN kept k ON k.event = u.event AND k.endpoint = u.endpoint AND (kept_batches IS NULL OR k.batch = b.id)
    WHERE b.dispatcher_id = give_back.dispatcher
      AND NOT EXISTS (SELECT FROM outbox.attempt a  -- OFFSET 0: a probe per pair, whatever the size of history
                      WHERE a.event_id = u.event AND a.endpoint_id = u.endpoint AND a.batch_id = b.id OFFSET 0)
  ), unresolved AS MATERIALIZED (
    SELECT p.batch_id, p.event, p.endpoint FROM pair p WHERE NOT p.is_kept
  ), noted AS (
    INSERT INTO outbox.attempt (event_id, endpoint_id, batch_id, dispatcher_id, outcome, attempt)
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
    INSERT INTO outbox.attempt (event_id, endpoint_id, dispatcher_id, outcome, attempt)
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
