-- Martlet 0007: the cut, which makes deliveries of committed events, exactly once.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(7, 'cut');

-- Waits for a transaction that writes to begin or end: looks every `pause` seconds, `rounds` times, and returns the snapshot as
-- soon as it is not `seen`. Its own snapshot holds back the removal of dead rows as long as that; call it for moments.
CREATE FUNCTION outbox.watch(seen text, pause double precision, rounds int) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slept text;
BEGIN
  FOR round IN 1..rounds LOOP
    slept := pg_sleep(pause);  -- as an expression, at two thirds of what PERFORM costs
    EXIT WHEN pg_current_snapshot()::text IS DISTINCT FROM seen;
  END LOOP;
  RETURN pg_current_snapshot()::text;
END $$;

-- The cut: takes up to `max_events` committed events that were not taken before, in the order (tx, id), and moves the
-- position past them. What may go straight out becomes one batch, leased to this dispatcher, and is returned; all other
-- pairs of event and endpoint become rows of outbox.delivery. Exactly once for every committed event, never for one that
-- rolled back, whatever the order of commits.
--
-- New events are those visible in `target` and not in `done`: rows whose transaction was in progress in `done` and is not
-- in `target`, and rows with done's xmax <= tx < target's xmax that `target` sees. When they are exhausted, `target`
-- becomes `done`. A long transaction thus delays its own events and nobody else's, and costs the cut nothing.
--
-- At most `max_direct` pairs are returned, with at most about `max_bytes` of payload, and at most
-- `max_per_endpoint` pairs of one endpoint, or `busy_slots` where the endpoint is named in `busy_endpoints`.
--
-- An event goes to endpoints of its tenant that ask for its type and whose filter it matches. A cut takes no more events than
-- make 20,000 pairs with endpoints that ask for the type, but always one; and no more than their filters can be evaluated in
-- a moment (outbox.judge). It disables an endpoint whose filter takes too long; if it cannot get past it, it does nothing else.
--
-- Returns, if anything was cut, one row with event_id null (events cut, pairs parked, whether there is more, and as
-- endpoint_ids those of the parked that can be claimed at once), then a row per event that goes straight out. Returns
-- nothing if there is nothing new or another dispatcher is cutting; an idle call writes nothing.
--
-- Of a key where order matters, rows are parked in the order of their ids, which is that of the commits, as far as a row
-- lock gave them one. That of a whole target, too, though it is taken in (tx, id) order, a part at a time: what may have a
-- predecessor in a part to come is set aside, and settled when the target is exhausted.
--
-- Locks: the cut lock; the dispatcher's lease, shared; the ordered endpoints concerned; filter_failure's rows, at the end.
-- Indexes: position_pkey, event_tx_id (index-only), event_pkey, subscription_pkey, endpoint_pkey, endpoint_health_pkey.
CREATE FUNCTION outbox.cut(
  dispatcher bigint, max_events int, max_direct int, max_per_endpoint int, max_bytes bigint,
  busy_endpoints bigint[] DEFAULT '{}', busy_slots int[] DEFAULT '{}', resyncs bigint DEFAULT NULL
) RETURNS TABLE (
  batch_id bigint, events_cut int, parked int, more boolean,
  event_id uuid, type text, tenant text, key text, created_at timestamptz, payload jsonb, metadata jsonb,
  endpoint_ids bigint[], endpoint_versions bigint[]
)
LANGUAGE plpgsql ROWS 500
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  last outbox.position;
  goal pg_snapshot;
  exhausted boolean := false;  -- the target that the last cut began has nothing left
  late xid8[];          -- in progress in `done`, committed since
  low_tx xid8;          -- where the range scan begins, exclusively
  low_id uuid;
  nil CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
  omega CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  txs xid8[];
  ids uuid[];
  taken int := 0;
  pairs_per_cut CONSTANT int := 20000;
  faults jsonb;         -- filters that failed or take too long
  direct_events uuid[]; direct_endpoints bigint[]; direct_versions bigint[];
  claimable bigint[];
  horizon uuid;         -- what is newer is set aside, where order matters
  parked_events uuid[]; parked_endpoints bigint[]; parked_keys text[]; parked_due timestamptz[];
BEGIN
  PERFORM outbox.require_read_committed();
  -- A transaction counts as over in its own snapshot: what it published after this cut would never be cut.
  IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
    RAISE EXCEPTION 'outbox.cut must be called before its transaction writes anything' USING ERRCODE = 'active_sql_transaction';
  END IF;
  IF max_events IS NULL OR max_events < 1 OR NOT pg_try_advisory_xact_lock(1296126548, 0) THEN
    RETURN;
  END IF;
  -- After the lock, in a fresh snapshot: what the previous cutter committed is seen.
  SELECT * INTO STRICT last FROM outbox.position ORDER BY id DESC LIMIT 1;
  LOOP
    goal := last.target;
    IF last.after_tx IS NULL THEN
      goal := pg_current_snapshot();
      IF goal::text = last.done::text THEN  -- no transaction has begun or ended since
        EXIT WHEN exhausted;
        RETURN;
      END IF;
    END IF;

    SELECT array_agg(x ORDER BY x) INTO late FROM pg_snapshot_xip(last.done) x
    WHERE pg_visible_in_snapshot(x, goal) AND (last.after_tx IS NULL OR x >= last.after_tx);
    IF last.after_tx >= pg_snapshot_xmax(last.done) THEN
      low_tx := last.after_tx; low_id := last.after_id;
    ELSE
      low_tx := (pg_snapshot_xmax(last.done)::text::bigint - 1)::text::xid8; low_id := omega;
    END IF;
    SELECT array_agg(e.tx ORDER BY e.tx, e.id), array_agg(e.id ORDER BY e.tx, e.id) INTO txs, ids
    FROM (
      SELECT both_kinds.tx, both_kinds.id FROM (
        SELECT of_late.tx, of_late.id
        FROM unnest(late) l(tx) CROSS JOIN LATERAL (
          SELECT event.tx, event.id FROM outbox.event
          WHERE event.tx = l.tx AND event.id > CASE WHEN l.tx = last.after_tx THEN last.after_id ELSE nil END
          ORDER BY event.id LIMIT max_events) of_late
        UNION ALL
        (SELECT event.tx, event.id FROM outbox.event
         WHERE (event.tx, event.id) > (low_tx, low_id) AND event.tx < pg_snapshot_xmax(goal)
           AND pg_visible_in_snapshot(event.tx, goal)
         ORDER BY event.tx, event.id LIMIT max_events)
      ) both_kinds
      ORDER BY both_kinds.tx, both_kinds.id LIMIT max_events
    ) e;
    taken := coalesce(cardinality(ids), 0);
    EXIT WHEN taken > 0 OR last.after_tx IS NULL;
    -- All of the target has been cut: what was set aside meanwhile comes into its order, before anything newer.
    IF outbox.first_set_aside() IS NOT NULL THEN
      PERFORM outbox.hold_lease(dispatcher, resyncs);
      endpoint_ids := outbox.settle(pairs_per_cut);
      events_cut := 0; parked := 0; more := true;
      RETURN NEXT;
      RETURN;
    END IF;
    -- The last cut ended exactly at the end of its target: on to the next one.
    exhausted := true;
    last.done := goal; last.after_tx := NULL; last.after_id := NULL;
  END LOOP;

  IF taken = 0 AND NOT exhausted AND last.cut_at > clock_timestamp() - interval '1 s' THEN
    RETURN;  -- other transactions came and went; following them once a second is enough
  END IF;
  IF taken > 0 THEN
    PERFORM outbox.hold_lease(dispatcher, resyncs);
  END IF;

  -- OFFSET 0 keeps each look-up a probe per row: merged with its whole table, it would cost by the endpoints that do not
  -- match and the events that are not cut.
  WITH fresh AS MATERIALIZED (
    SELECT e.id, u.ord, e.type, e.tenant, e.key, e.not_before,
           -- What is small is not compressed; what may be is measured as it will be sent.
           sum(CASE WHEN pg_column_size(e.payload) < 1000 THEN 1000 ELSE octet_length(e.payload::text) END)
             OVER (ORDER BY u.ord) <= max_bytes AS light
    FROM unnest(ids) WITH ORDINALITY u(id, ord) CROSS JOIN LATERAL (
      SELECT e.id, e.type, e.tenant, e.key, e.not_before, e.payload FROM outbox.event e WHERE e.id = u.id OFFSET 0) e
  ), kind AS MATERIALIZED (
    SELECT DISTINCT f.tenant, f.type FROM fresh f
  ), candidate AS MATERIALIZED (  -- two patterns of one endpoint are one
    SELECT DISTINCT ON (k.tenant, k.type, s.endpoint_id) k.tenant, k.type, s.endpoint_id, s.filter
    FROM kind k CROSS JOIN LATERAL unnest(outbox.patterns(k.type)) p(pattern)
    CROSS JOIN LATERAL (SELECT s.endpoint_id, s.filter FROM outbox.subscription s
                        WHERE s.tenant = k.tenant AND s.pattern = p.pattern OFFSET 0) s
    ORDER BY k.tenant, k.type, s.endpoint_id
  ), breadth AS MATERIALIZED (  -- of each kind how many, and where its filters are among all
    SELECT c.tenant, c.type, count(*) AS pairs, count(c.filter) AS filters,
           sum(count(c.filter)) OVER (ORDER BY c.tenant, c.type) AS last_filter
    FROM candidate c GROUP BY c.tenant, c.type
  ), narrow AS MATERIALIZED (
    SELECT f.* FROM (
      SELECT f.*, b.filters, b.last_filter, sum(coalesce(b.pairs, 0)) OVER (ORDER BY f.ord) AS pairs
      FROM fresh f LEFT JOIN breadth b ON b.tenant = f.tenant AND b.type = f.type) f
    WHERE f.pairs <= pairs_per_cut OR f.ord = 1
  ), verdict AS MATERIALIZED (
    SELECT v.kind, n.ords[v.i] AS ord, v.endpoint_id, v.events, v.words
    FROM (SELECT array_agg(n.id ORDER BY n.ord) AS ids, array_agg(n.ord ORDER BY n.ord) AS ords,
                 array_agg((n.last_filter - n.filters + 1)::int ORDER BY n.ord) AS firsts,
                 array_agg(n.last_filter::int ORDER BY n.ord) AS lasts
          FROM narrow n WHERE n.filters > 0 HAVING count(*) > 0) n
    CROSS JOIN LATERAL (SELECT array_agg(c.endpoint_id ORDER BY c.tenant, c.type, c.endpoint_id) AS endpoints,
                               array_agg(c.filter ORDER BY c.tenant, c.type, c.endpoint_id) AS filters
                        FROM candidate c WHERE c.filter IS NOT NULL) c
    CROSS JOIN LATERAL outbox.judge(n.ids, n.firsts, n.lasts, c.endpoints, c.filters) v
  ), kept AS MATERIALIZED (
    SELECT n.* FROM narrow n WHERE n.ord < coalesce((SELECT v.ord FROM verdict v WHERE v.kind = 'stop'), 2147483647)
  ), route AS MATERIALIZED (
    SELECT k.tenant, k.type, ep.id AS endpoint_id, k.filter IS NOT NULL AS filtered, ep.version, ep.ordered, ep.rate_limit IS NOT NULL AS limited,
           ep.state = 'enabled' AND coalesce(h.state = 'closed', true) AS open_way,
           coalesce(b.slots, max_per_endpoint) AS slots
    FROM (SELECT c.* FROM candidate c
          WHERE c.filter IS NULL OR c.endpoint_id IN (SELECT v.endpoint_id FROM verdict v WHERE v.kind = 'matches')) k
    CROSS JOIN LATERAL (SELECT ep.id, ep.version, ep.ordered, ep.rate_limit, ep.state FROM outbox.endpoint ep
                        WHERE ep.id = k.endpoint_id OFFSET 0) ep
    LEFT JOIN LATERAL (SELECT h.state FROM outbox.endpoint_health h WHERE h.endpoint_id = k.endpoint_id OFFSET 0) h ON true
    LEFT JOIN LATERAL (SELECT u.slots FROM unnest(busy_endpoints, busy_slots) u(id, slots) WHERE u.id = ep.id LIMIT 1) b ON true
  ), pair AS (
    SELECT f.id, f.ord, f.key, f.not_before, r.endpoint_id, r.version, r.slots, r.ordered AND f.key IS NOT NULL AS in_order,
           r.open_way AND (f.not_before IS NULL OR f.not_before <= clock_timestamp()) AS claimable,
           f.light AND r.open_way AND NOT r.limited AND NOT (r.ordered AND f.key IS NOT NULL)
             AND (f.not_before IS NULL OR f.not_before <= clock_timestamp()) AS eligible
    FROM kept f JOIN route r ON r.tenant = f.tenant AND r.type = f.type
    WHERE NOT r.filtered OR (f.ord, r.endpoint_id) IN (SELECT v.ord, v.endpoint_id FROM verdict v WHERE v.kind = 'matches')
  ), placed AS (
    SELECT p.*, p.eligible AND row_number() OVER (PARTITION BY p.endpoint_id, p.eligible ORDER BY p.ord) <= p.slots AS fits
    FROM pair p
  ), chosen AS (
    SELECT p.*, p.fits AND row_number() OVER (PARTITION BY p.fits ORDER BY p.ord, p.endpoint_id) <= max_direct AS direct
    FROM placed p
  )
  SELECT array_agg(c.id ORDER BY c.ord, c.endpoint_id) FILTER (WHERE c.direct),
         array_agg(c.endpoint_id ORDER BY c.ord, c.endpoint_id) FILTER (WHERE c.direct),
         array_agg(c.version ORDER BY c.ord, c.endpoint_id) FILTER (WHERE c.direct),
         array_agg(c.id ORDER BY c.id, c.endpoint_id) FILTER (WHERE NOT c.direct),
         array_agg(c.endpoint_id ORDER BY c.id, c.endpoint_id) FILTER (WHERE NOT c.direct),
         array_agg(CASE WHEN c.in_order THEN c.key END ORDER BY c.id, c.endpoint_id) FILTER (WHERE NOT c.direct),
         array_agg(greatest(c.not_before, clock_timestamp()) ORDER BY c.id, c.endpoint_id) FILTER (WHERE NOT c.direct),
         array_agg(DISTINCT c.endpoint_id) FILTER (WHERE NOT c.direct AND c.claimable),
         (SELECT count(*) FROM kept), (SELECT jsonb_agg(to_jsonb(v)) FROM verdict v WHERE v.kind IN ('failed', 'slow', 'skipped'))
  INTO direct_events, direct_endpoints, direct_versions, parked_events, parked_endpoints, parked_keys, parked_due, claimable,
       taken, faults
  FROM chosen c;

  more := taken = max_events OR taken < cardinality(ids);
  -- Parked by id: ids grow with the time of insertion. Of two transactions that a row lock put in order the second may
  -- have the lower tx, if it wrote something else first; then what must come before it may be in a later cut of this target.
  IF parked_events IS NOT NULL THEN
    parked := cardinality(parked_events);
    IF (more OR last.after_tx IS NOT NULL) AND parked_keys IS DISTINCT FROM array_fill(NULL::text, ARRAY[parked]) THEN
      horizon := least(CASE WHEN more THEN outbox.order_horizon(last.done, goal, txs[taken], ids[taken]) END,
                       outbox.first_set_aside());
      IF parked_events[parked] > horizon THEN  -- the last is the newest
        INSERT INTO outbox.delivery (event_id, endpoint_id, ready, due_at)
        SELECT u.event, u.endpoint, false, u.due
        FROM unnest(parked_events, parked_endpoints, parked_keys, parked_due) u(event, endpoint, key, due)
        WHERE u.key IS NOT NULL AND u.event > horizon ON CONFLICT (event_id, endpoint_id) DO NOTHING;
        SELECT array_agg(u.event ORDER BY u.ord), array_agg(u.endpoint ORDER BY u.ord), array_agg(u.key ORDER BY u.ord),
               array_agg(u.due ORDER BY u.ord)
        INTO parked_events, parked_endpoints, parked_keys, parked_due
        FROM unnest(parked_events, parked_endpoints, parked_keys, parked_due) WITH ORDINALITY u(event, endpoint, key, due, ord)
        WHERE u.key IS NULL OR u.event <= horizon;
      END IF;
    END IF;
    IF parked_events IS NOT NULL THEN
      PERFORM outbox.park(parked_events, parked_endpoints, parked_keys, parked_due);
    END IF;
  END IF;
  more := more OR (last.after_tx IS NOT NULL AND outbox.first_set_aside() IS NOT NULL);  -- then the next one settles
  IF direct_events IS NOT NULL THEN
    INSERT INTO outbox.batch (dispatcher_id, event_ids, endpoint_ids)
    VALUES (dispatcher, direct_events, direct_endpoints) RETURNING id INTO batch_id;
  END IF;
  IF faults IS NOT NULL THEN
    PERFORM outbox.note_filter_faults(faults, taken, ids);
  END IF;
  IF taken = 0 AND ids IS NOT NULL THEN
    RETURN;  -- a filter took all the time there was; the next cut gets past it
  END IF;
  INSERT INTO outbox.position (done, target, after_tx, after_id, events)
  VALUES (CASE WHEN more THEN last.done ELSE goal END, goal,
          CASE WHEN more THEN txs[taken] END, CASE WHEN more THEN ids[taken] END, taken);
  IF taken = 0 THEN
    RETURN;
  END IF;

  events_cut := taken;
  parked := coalesce(parked, 0);
  endpoint_ids := claimable;
  RETURN NEXT;
  IF direct_events IS NOT NULL THEN
    RETURN QUERY
      SELECT batch_id, NULL::int, NULL::int, NULL::boolean,
             e.id, e.type, e.tenant, e.key, e.created_at, e.payload, e.metadata, g.endpoints, g.versions
      FROM (SELECT u.id, min(u.ord) AS ord, array_agg(u.endpoint) AS endpoints, array_agg(u.version) AS versions
            FROM unnest(direct_events, direct_endpoints, direct_versions) WITH ORDINALITY u(id, endpoint, version, ord)
            GROUP BY u.id ORDER BY min(u.ord)) g
      CROSS JOIN LATERAL (SELECT e.id, e.type, e.tenant, e.key, e.created_at, e.payload, e.metadata
                          FROM outbox.event e WHERE e.id = g.id OFFSET 0) e;
  END IF;
END $$;
COMMIT;
