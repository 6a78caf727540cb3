-- Martlet 0004: leases and the cut, the two things that make delivery exact.
--
-- Advisory locks, all of them released with their transaction:
--   (1296126548, 0)            one dispatcher cuts at a time
--   (1296126548, 1)            migrations
--   (1296126548, 3)            one repair at a time
--   (1296126548, 4)            one prover at a time
--   (1296126549, dispatcher)   shared by each step a dispatcher takes under its lease, exclusive to take the lease away
--   (1296126550, endpoint)     an ordered endpoint's keys: cut adds successors, record promotes them
--   (1296126552, endpoint)     a rate limit's bucket, from looking into it to taking out of it; only tried, never waited for,
--                              but for the end of the endpoint
--   (1296126551, dispatcher)   one record of a dispatcher at a time, also after it lost its connection in the middle
--
-- The plans of the hot functions are fixed: generic plans, indexes only, whatever the statistics of the day say.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(4, 'cut');

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
  FROM outbox.dispatcher d LEFT JOIN outbox.witness w ON w.dispatcher_id = d.id WHERE d.id = hold_lease.dispatcher;
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

-- Evaluates filters: of event `ids[i]` those from `firsts[i]` to `lasts[i]`, in this order. Returns rows of these kinds:
--   matches  the i-th event matches endpoint_id's filter
--   failed   endpoint_id's filter could not tell of `events` of them, for the reason in `words`; they do not match
--   slow     endpoint_id's filter takes too long, says `words`: the endpoint must be disabled, and matches nothing from then on
--   skipped  the i-th event was not judged for endpoint_id, for the reason in `words`, and will not be
--   stop     time is up: what comes from the i-th event on was not judged, and is not to be cut yet
--
-- A filter is somebody's program, and a cut is everybody's time. Evaluation stops after two seconds, at the end of an event.
-- A filter that has taken a second in at least two tries is slow; two, because the machine may have stood still in one.
-- One that takes longer than the caller's statement_timeout is slow as well: the timeout is caught, since it would come
-- again for as long as the event is there to be cut.
-- If none is slow, and all together take five seconds for the first event alone (a large one, thousands of filters), the
-- rest of them fail for it: what is not done by then would not be done the next time either.
-- Index: event_pkey. Locks: none.
CREATE FUNCTION outbox.judge(ids uuid[], firsts int[], lasts int[], endpoints bigint[], filters jsonpath[])
RETURNS TABLE (kind text, i int, endpoint_id bigint, events int, words text)
LANGUAGE plpgsql ROWS 100
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
  began CONSTANT timestamptz := clock_timestamp();
  no_time CONSTANT text := 'there was no time left for it: the event is large, and very many endpoints have filters';
  document jsonb;
  large boolean;
  f int;
  item jsonb;
  at timestamptz;
  took interval;
  -- Set while a filter that failed is tried once more: the items it gave before it failed count.
  problem text;
  slot int;
  failed bigint[] := '{}'; failures int[] := '{}'; problems text[] := '{}';
  heavy bigint[] := '{}'; tries int[] := '{}'; times interval[] := '{}';
  slow bigint[] := '{}';
  unjudged bigint[] := '{}';
BEGIN
  <<event>>
  FOR n IN 1..cardinality(ids) LOOP
    SELECT outbox.filter_document(e.type, e.tenant, e.key, e.payload, e.metadata) INTO document
    FROM outbox.event e WHERE e.id = ids[n];
    large := pg_column_size(document) > 65536;  -- as outbox.too_large_to_compare asks
    f := firsts[n];
    WHILE f <= lasts[n] LOOP
      BEGIN  -- left when a filter fails, and entered again after that one
        WHILE f <= lasts[n] LOOP
          IF endpoints[f] = ANY (slow) THEN
            kind := 'skipped'; i := n; endpoint_id := endpoints[f]; words := 'its filter takes too long';
            RETURN NEXT;
            words := NULL;
            f := f + 1;
            CONTINUE;
          END IF;
          IF large AND outbox.too_large_to_compare(filters[f], document) THEN
            RAISE EXCEPTION 'the event is larger than 64 KiB, too large to compare two of its parts';
          END IF;
          at := clock_timestamp();
          IF at - began > interval '5 s' AND NOT interval '50 ms' < ANY (times) THEN
            IF n > 1 THEN
              kind := 'stop'; i := n; endpoint_id := NULL;
              RETURN NEXT;
              EXIT event;
            END IF;
            unjudged := endpoints[f:lasts[n]];
            f := lasts[n] + 1;
            CONTINUE;
          END IF;
          item := jsonb_path_query_first_tz(document, filters[f], '{}', problem IS NOT NULL);
          took := clock_timestamp() - at;
          IF took > interval '5 ms' THEN
            slot := array_position(heavy, endpoints[f]);
            IF slot IS NULL THEN
              heavy := heavy || endpoints[f]; tries := tries || 1; times := times || took;
              slot := cardinality(heavy);
            ELSE
              tries[slot] := tries[slot] + 1; times[slot] := times[slot] + took;
            END IF;
            IF times[slot] > interval '1 s' THEN
              CONTINUE WHEN tries[slot] < 2;
              slow := slow || endpoints[f];
              problem := NULL;
              CONTINUE;  -- to be skipped
            END IF;
          END IF;
          IF item IS NULL THEN
            NULL;
          ELSIF item = 'null' THEN
            -- A predicate that is unknown, unless a path has found a null.
            IF filters[f]::text !~ '^(strict )?\$' THEN
              problem := coalesce(problem, 'the result is unknown: a value is of another type than the filter expects');
            END IF;
          ELSIF item <> 'false' THEN
            kind := 'matches'; i := n; endpoint_id := endpoints[f];
            RETURN NEXT;
            problem := NULL;
          ELSE
            problem := NULL;
          END IF;
          IF problem IS NOT NULL THEN
            slot := array_position(failed, endpoints[f]);
            IF slot IS NULL THEN
              failed := failed || endpoints[f]; failures := failures || 1; problems := problems || problem;
            ELSE
              failures[slot] := failures[slot] + 1;
            END IF;
            problem := NULL;
          END IF;
          f := f + 1;
        END LOOP;
      EXCEPTION
        WHEN query_canceled THEN
          took := clock_timestamp() - at;
          IF took > interval '1 s' THEN
            heavy := heavy || endpoints[f]; tries := tries || 1; times := times || took;
            slow := slow || endpoints[f];
          ELSIF slow = '{}' THEN
            -- Of many that each take a while, all together too long for one event, those that take most of it.
            slow := ARRAY(SELECT h.endpoint FROM unnest(heavy, times) h(endpoint, took) WHERE h.took > interval '50 ms');
            IF slow = '{}' OR clock_timestamp() - began < interval '2 s' THEN
              RAISE;  -- it was not the filters
            END IF;
          END IF;
          kind := 'stop'; i := n; endpoint_id := NULL;
          RETURN NEXT;
          EXIT event;
        WHEN OTHERS THEN
          IF problem IS NULL THEN
            problem := SQLERRM;
          ELSE
            slot := array_position(failed, endpoints[f]);
            IF slot IS NULL THEN
              failed := failed || endpoints[f]; failures := failures || 1; problems := problems || problem;
            ELSE
              failures[slot] := failures[slot] + 1;
            END IF;
            problem := NULL;
            f := f + 1;
          END IF;
      END;
    END LOOP;
    IF n < cardinality(ids) AND clock_timestamp() - began > interval '2 s' THEN
      kind := 'stop'; i := n + 1; endpoint_id := NULL;
      RETURN NEXT;
      EXIT;
    END IF;
  END LOOP;
  -- Only the first event of all is passed by like this.
  RETURN QUERY SELECT 'skipped', 1, n.endpoint, NULL::int, no_time FROM unnest(unjudged) n(endpoint);
  RETURN QUERY SELECT 'failed', NULL::int, u.endpoint, sum(u.events)::int, max(u.words)
    FROM (SELECT f.endpoint, f.events, f.words FROM unnest(failed, failures, problems) f(endpoint, events, words)
          UNION ALL
          SELECT n.endpoint, 1, no_time FROM unnest(unjudged) n(endpoint)) u
    GROUP BY u.endpoint;
  RETURN QUERY SELECT 'slow', NULL::int, h.endpoint, NULL::int,
      format('its filter takes too long (evaluations: %s, seconds: %s)', h.tries, round(extract(epoch FROM h.took)::numeric, 1))
    FROM unnest(heavy, tries, times) h(endpoint, tries, took) WHERE h.endpoint = ANY (slow);
END $$;

-- Writes down which filters failed and which pairs were skipped, unless nothing was cut after all and they will fail again;
-- and disables the endpoints of those that take too long. What somebody else is changing just now is passed over: a cut
-- waits for nobody. `ids`: the events in the order in which `faults` numbers them.
-- Index: filter_failure_pkey, endpoint_pkey, skipped_pkey. Locks: the rows, and those of their endpoints against deletion.
CREATE FUNCTION outbox.note_filter_faults(faults jsonb, events_cut int, ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
  IF events_cut > 0 THEN
    WITH fault AS MATERIALIZED (
      SELECT x.endpoint_id, x.events, left(x.words, 1000) AS words
      FROM jsonb_to_recordset(faults) x(kind text, endpoint_id bigint, events int, words text) WHERE x.kind = 'failed'
    ), held AS MATERIALIZED (  -- a probe per failure: there may be thousands
      SELECT x.endpoint_id, x.events, x.words FROM fault x CROSS JOIN LATERAL (
        SELECT FROM outbox.filter_failure f WHERE f.endpoint_id = x.endpoint_id FOR UPDATE SKIP LOCKED) f
    ), counted AS (
      UPDATE outbox.filter_failure f SET failures = f.failures + h.events, failed_at = clock_timestamp(), error = h.words
      FROM held h WHERE f.endpoint_id = h.endpoint_id
    ), live AS MATERIALIZED (
      SELECT x.endpoint_id, x.events, x.words FROM fault x CROSS JOIN LATERAL (
        SELECT FROM outbox.endpoint e WHERE e.id = x.endpoint_id FOR KEY SHARE SKIP LOCKED) e
    )
    INSERT INTO outbox.filter_failure (endpoint_id, failures, error)
    SELECT l.endpoint_id, l.events, l.words FROM live l
    WHERE NOT EXISTS (SELECT FROM outbox.filter_failure f WHERE f.endpoint_id = l.endpoint_id OFFSET 0);
    INSERT INTO outbox.skipped (event_id, endpoint_id, because)
    SELECT ids[x.ord], x.endpoint_id, x.words FROM jsonb_to_recordset(faults) x(kind text, ord int, endpoint_id bigint, words text)
    WHERE x.kind = 'skipped' AND x.ord <= events_cut ON CONFLICT (event_id, endpoint_id) DO NOTHING;
  END IF;
  PERFORM outbox.disable_for_filter(x.endpoint_id, x.words, (SELECT min(e.created_at) FROM outbox.event e WHERE e.id = ANY (ids)))
  FROM jsonb_to_recordset(faults) x(kind text, endpoint_id bigint, words text) WHERE x.kind = 'slow';
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
      FROM (SELECT u.id, min(u.ord) AS ord, array_agg(u.endpoint ORDER BY u.ord) AS endpoints,
                   array_agg(u.version ORDER BY u.ord) AS versions
            FROM unnest(direct_events, direct_endpoints, direct_versions) WITH ORDINALITY u(id, endpoint, version, ord)
            GROUP BY u.id ORDER BY min(u.ord)) g
      CROSS JOIN LATERAL (SELECT e.id, e.type, e.tenant, e.key, e.created_at, e.payload, e.metadata
                          FROM outbox.event e WHERE e.id = g.id OFFSET 0) e;
  END IF;
END $$;

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
