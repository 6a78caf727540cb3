-- Martlet 0009: the claim, which hands out what waits.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(9, 'claim');

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
COMMIT;
