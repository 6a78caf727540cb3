-- Martlet 0019: the proof that nothing was lost, kept in a ledger, and the repair of what was.
--
-- For every event that was cut, every pair with an endpoint that was certainly subscribed to it at the cut, with a filter that
-- the event matches, must be delivered, waiting, in flight or dead. outbox.prove follows the cut, looks at each event once,
-- and writes a row for some thousand of them into outbox.proof; pairs that still wait or fly then are looked at again, after
-- a minute, two, four, at last once a day, until they are delivered or dead. outbox.conservation adds the rows up, and looks
-- itself at what was cut since.
--
-- A pair once delivered or dead is settled: that somebody later deletes its history, or sends it again, is no loss.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(19, 'prove');

-- The next up to `max_events` events that the cut has taken beyond (done, target, after_tx, after_id), and how far they
-- reach, in the same terms. `last`: how far the cut has come. The same arguments give the same events.
-- Index: event_tx_id (index-only), as in outbox.cut.
CREATE FUNCTION outbox.cut_since(
  INOUT done pg_snapshot, INOUT target pg_snapshot, INOUT after_tx xid8, INOUT after_id uuid,
  last outbox.position, max_events int, OUT ids uuid[]
) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off
AS $$
DECLARE
  nil CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
  omega CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  is_being_cut boolean;  -- `target`: only a part of it has been
  late xid8[];
  low_tx xid8; low_id uuid; high_tx xid8; high_id uuid;
  found_txs xid8[]; found_ids uuid[];
  wanted int;
BEGIN
  ids := '{}';
  LOOP
    IF after_tx IS NULL THEN
      IF last.done::text <> done::text THEN
        target := last.done;
      ELSIF last.after_tx IS NOT NULL THEN
        target := last.target;
      ELSE
        RETURN;
      END IF;
    END IF;
    is_being_cut := last.after_tx IS NOT NULL AND last.done::text = done::text AND last.target::text = target::text;
    high_tx := pg_snapshot_xmax(target); high_id := omega;
    IF is_being_cut THEN
      high_tx := last.after_tx; high_id := last.after_id;
    END IF;
    SELECT array_agg(x ORDER BY x) INTO late FROM pg_snapshot_xip(done) x
    WHERE pg_visible_in_snapshot(x, target) AND (after_tx IS NULL OR x >= after_tx);
    IF after_tx >= pg_snapshot_xmax(done) THEN
      low_tx := after_tx; low_id := after_id;
    ELSE
      low_tx := (pg_snapshot_xmax(done)::text::bigint - 1)::text::xid8; low_id := omega;
    END IF;
    wanted := max_events - cardinality(ids);
    SELECT array_agg(e.tx ORDER BY e.tx, e.id), array_agg(e.id ORDER BY e.tx, e.id) INTO found_txs, found_ids
    FROM (
      SELECT both_kinds.tx, both_kinds.id FROM (
        SELECT of_late.tx, of_late.id
        FROM unnest(late) l(tx) CROSS JOIN LATERAL (
          SELECT event.tx, event.id FROM outbox.event
          WHERE event.tx = l.tx AND event.id > CASE WHEN l.tx = after_tx THEN after_id ELSE nil END
            AND (event.tx, event.id) <= (high_tx, high_id)
          ORDER BY event.id LIMIT wanted) of_late
        UNION ALL
        (SELECT event.tx, event.id FROM outbox.event
         WHERE (event.tx, event.id) > (low_tx, low_id) AND (event.tx, event.id) <= (high_tx, high_id)
           AND pg_visible_in_snapshot(event.tx, target)
         ORDER BY event.tx, event.id LIMIT wanted)
      ) both_kinds
      ORDER BY both_kinds.tx, both_kinds.id LIMIT wanted
    ) e;
    ids := ids || coalesce(found_ids, '{}');
    IF cardinality(found_ids) = wanted THEN
      after_tx := found_txs[wanted]; after_id := found_ids[wanted];
      RETURN;
    ELSIF is_being_cut THEN
      after_tx := last.after_tx; after_id := last.after_id;
      RETURN;
    END IF;
    done := target; after_tx := NULL; after_id := NULL;
  END LOOP;
END $$;

-- The patterns under which some events are subscribed to, now or in the past, and for which transactions that is certain.
-- Index: subscription_pkey, past_subscription_pattern.
CREATE FUNCTION outbox.certain_routes(tenant text, type text)
RETURNS TABLE (endpoint_id bigint, since xid8, until pg_snapshot, filter jsonpath)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.endpoint_id, s.since, NULL::pg_snapshot, s.filter
  FROM unnest(outbox.patterns(type)) p(pattern)
  JOIN outbox.subscription s ON s.tenant = certain_routes.tenant AND s.pattern = p.pattern AND s.since IS NOT NULL
  UNION ALL
  SELECT s.endpoint_id, s.since, s.until, s.filter
  FROM unnest(outbox.patterns(type)) p(pattern)
  JOIN outbox.past_subscription s ON s.tenant = certain_routes.tenant AND s.pattern = p.pattern
    AND EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = s.endpoint_id)
$$;

-- The pairs that events which have been cut must have been cut for, and those that were skipped.
-- Indexes: event_pkey, skipped_pkey, those of outbox.certain_routes, once for each tenant and type.
CREATE FUNCTION outbox.owed(ids uuid[]) RETURNS TABLE (event_id uuid, endpoint_id bigint)
LANGUAGE plpgsql STABLE ROWS 10000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH cut AS MATERIALIZED (
      SELECT e.id, e.tx, e.tenant, e.type FROM unnest(ids) u(id) CROSS JOIN LATERAL (
        SELECT e.id, e.tx, e.tenant, e.type FROM outbox.event e WHERE e.id = u.id OFFSET 0) e
    ), skipped AS MATERIALIZED (
      SELECT s.event_id, s.endpoint_id FROM unnest(ids) u(id) CROSS JOIN LATERAL (
        SELECT s.event_id, s.endpoint_id FROM outbox.skipped s WHERE s.event_id = u.id OFFSET 0) s
    ), route AS MATERIALIZED (
      SELECT k.tenant, k.type, r.* FROM (SELECT DISTINCT c.tenant, c.type FROM cut c) k
      CROSS JOIN LATERAL outbox.certain_routes(k.tenant, k.type) r
    )
    SELECT c.id, r.endpoint_id FROM cut c JOIN route r ON r.tenant = c.tenant AND r.type = c.type
    WHERE c.tx >= r.since AND (r.until IS NULL OR pg_visible_in_snapshot(c.tx, r.until))
      AND CASE WHEN r.filter IS NULL THEN true
               -- It took too long in the cut, and would here.
               WHEN (c.id, r.endpoint_id) IN (SELECT s.event_id, s.endpoint_id FROM skipped s) THEN false
               ELSE outbox.matches(r.filter, (
                 SELECT outbox.filter_document(e.type, e.tenant, e.key, e.payload, e.metadata) FROM outbox.event e WHERE e.id = c.id)) END
    UNION  -- two patterns of one endpoint are one
    SELECT s.event_id, s.endpoint_id FROM skipped s;
END $$;

-- The pairs of these events that history says were delivered since some moment, and others of the same seconds.
-- Indexes: attempt_packed_second, once a second in which any of the events was made; attempt_single_event.
CREATE FUNCTION outbox.delivered(event_ids uuid[], since timestamptz) RETURNS TABLE (event_id uuid, endpoint_id bigint)
LANGUAGE plpgsql STABLE ROWS 10000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT k.event_id, k.endpoint_id
    FROM (SELECT DISTINCT outbox.uuid_second(u.id) AS second FROM unnest(event_ids) u(id)) s
    CROSS JOIN LATERAL (SELECT p.event_ids, p.endpoint_ids FROM outbox.attempt_packed p
                        WHERE p.second = s.second AND p.at >= since OFFSET 0) p
    CROSS JOIN LATERAL unnest(p.event_ids, p.endpoint_ids) k(event_id, endpoint_id)
    UNION ALL
    SELECT a.event_id, a.endpoint_id FROM unnest(event_ids) u(id) CROSS JOIN LATERAL (
      SELECT a.event_id, a.endpoint_id FROM outbox.attempt_single a
      WHERE a.event_id = u.id AND a.outcome = 'delivered' AND a.at >= since OFFSET 0) a;
END $$;

-- What has become of pairs: delivered, dead, waiting, in_flight, skipped or missing; or gone, where nothing is known and the
-- endpoint was deleted. One statement, thus one snapshot: a pair on its way from table to table is seen in exactly one.
-- `tried_since`: in which days of history to look first; the others are asked before a pair is called missing.
-- Indexes: delivery_pkey, dead_letter_event, skipped_pkey, endpoint_pkey, those of outbox.delivered; of what waits the first alone.
CREATE FUNCTION outbox.pair_states(event_ids uuid[], endpoint_ids bigint[], tried_since timestamptz)
RETURNS TABLE (event_id uuid, endpoint_id bigint, state text)
LANGUAGE plpgsql STABLE ROWS 10000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    -- Each is looked for when the first pair asks for it; the last only if history of these days does not know.
    WITH flying AS MATERIALIZED (
      SELECT f.event_id, f.endpoint_id FROM outbox.in_flight f
    ), lately AS MATERIALIZED (
      SELECT d.event_id, d.endpoint_id FROM outbox.delivered(event_ids, tried_since) d
    ), ever AS MATERIALIZED (
      SELECT d.event_id, d.endpoint_id FROM outbox.delivered(event_ids, '-infinity') d
    )
    SELECT u.event, u.endpoint, coalesce(
      (SELECT CASE WHEN d.dispatcher_id IS NULL THEN 'waiting' ELSE 'in_flight' END FROM outbox.delivery d
       WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint),
      CASE WHEN (u.event, u.endpoint) IN (SELECT d.event_id, d.endpoint_id FROM lately d) THEN 'delivered' END,
      (SELECT 'dead' FROM outbox.dead_letter l WHERE l.event_id = u.event AND l.endpoint_id = u.endpoint),
      CASE WHEN (u.event, u.endpoint) IN (SELECT f.event_id, f.endpoint_id FROM flying f) THEN 'in_flight'
           WHEN (u.event, u.endpoint) IN (SELECT d.event_id, d.endpoint_id FROM ever d) THEN 'delivered'
           WHEN EXISTS (SELECT FROM outbox.skipped s WHERE s.event_id = u.event AND s.endpoint_id = u.endpoint) THEN 'skipped'
           WHEN EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = u.endpoint) THEN 'missing'
           ELSE 'gone' END)
    FROM unnest(event_ids, endpoint_ids) u(event, endpoint);
END $$;

-- Looks again at the open pairs of a row of the ledger, and puts it right.
-- Index: proof_pkey.
CREATE FUNCTION outbox.prove_row(row_id bigint) RETURNS SETOF outbox.proof
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
    WITH pair AS MATERIALIZED (
      SELECT s.event_id, s.endpoint_id, s.state FROM outbox.proof p
      CROSS JOIN LATERAL outbox.pair_states(p.open_events, p.open_endpoints, p.proved_at - interval '1 hour') s
      WHERE p.id = row_id
    ), tally AS (
      SELECT count(*) FILTER (WHERE s.state = 'delivered') AS delivered, count(*) FILTER (WHERE s.state = 'dead') AS dead,
             count(*) FILTER (WHERE s.state = 'waiting') AS waiting, count(*) FILTER (WHERE s.state = 'in_flight') AS in_flight,
             count(*) FILTER (WHERE s.state = 'missing') AS missing, count(*) FILTER (WHERE s.state = 'skipped') AS skipped,
             count(*) AS before,
             array_agg(s.event_id) FILTER (WHERE s.state IN ('waiting', 'in_flight', 'missing')) AS events,
             array_agg(s.endpoint_id) FILTER (WHERE s.state IN ('waiting', 'in_flight', 'missing')) AS endpoints
      FROM pair s
    )
    UPDATE outbox.proof p SET
      delivered = p.delivered + t.delivered, dead = p.dead + t.dead, skipped = p.skipped + t.skipped,
      waiting = t.waiting, in_flight = t.in_flight, missing = t.missing,
      -- As they are if nothing changed, so that they are not written anew.
      open_events = CASE WHEN cardinality(t.events) = t.before THEN p.open_events ELSE t.events END,
      open_endpoints = CASE WHEN cardinality(t.events) = t.before THEN p.open_endpoints ELSE t.endpoints END,
      proved_at = now, due_at = CASE WHEN t.events IS NOT NULL THEN outbox.next_look(p.began_at, now) END
    FROM tally t WHERE p.id = row_id RETURNING p.*;
END $$;

-- When open pairs are looked at again: after as long a time as it has taken so far, so that each is looked at a few times
-- only; within a day, so that what was deleted is missed, and what history forgets is known by then.
CREATE FUNCTION outbox.next_look(began_at timestamptz, now timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ SELECT now + least(greatest(now - began_at, interval '1 min'), interval '1 day') $$;

-- Goes on with the proof by one row of the ledger, which is returned: one whose open pairs are due to be looked at again, or a
-- new one of up to `max_events` events and, unless it is a single event, `max_pairs` pairs. Returns nothing if there is nothing to do, or somebody else
-- is doing it. Fewer events than `max_events` have to be older than `settled_for` to get a row.
-- Whoever calls this commits between one call and the next. Nothing that publishes or delivers waits for it.
-- Locks: the prover's.
-- Indexes: proof_due, proof_pkey, event_pkey, and those of the functions above.
-- SECURITY DEFINER: whoever may have it proved need not be able to write the ledger.
CREATE FUNCTION outbox.prove(max_events int DEFAULT 10000, settled_for interval DEFAULT '5 min', max_pairs int DEFAULT 100000)
RETURNS SETOF outbox.proof
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  now CONSTANT timestamptz := clock_timestamp();
  due bigint;
  before outbox.proof;
  last outbox.position;
  next record;
  first_at timestamptz; last_at timestamptz;
  fitting int;
BEGIN
  PERFORM outbox.require_read_committed();
  IF (max_events BETWEEN 1 AND 1000000 AND max_pairs BETWEEN 1 AND 10000000 AND settled_for >= '0 s') IS NOT TRUE THEN
    RAISE EXCEPTION 'max_events must be 1 to 1000000, max_pairs 1 to 10000000, settled_for not negative' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT pg_try_advisory_xact_lock(1296126548, 6) THEN
    RETURN;
  END IF;
  SELECT p.id INTO due FROM outbox.proof p WHERE p.due_at <= now ORDER BY p.due_at LIMIT 1;
  IF due IS NOT NULL THEN
    RETURN QUERY SELECT * FROM outbox.prove_row(due);
    RETURN;
  END IF;

  SELECT * INTO last FROM outbox.position ORDER BY id DESC LIMIT 1;
  SELECT * INTO before FROM outbox.proof ORDER BY id DESC LIMIT 1;
  IF before.id IS NULL THEN  -- somebody has emptied the ledger: it begins here
    RETURN QUERY INSERT INTO outbox.proof (done, target, after_tx, after_id, began_at, proved_at)
      VALUES (last.done, last.target, last.after_tx, last.after_id, now, now) RETURNING *;
    RETURN;
  END IF;
  next := outbox.cut_since(before.done, before.target, before.after_tx, before.after_id, last, max_events);
  WITH cut AS MATERIALIZED (
    SELECT u.place, e.tenant, e.type, e.created_at FROM unnest(next.ids) WITH ORDINALITY u(id, place) CROSS JOIN LATERAL (
      SELECT e.tenant, e.type, e.created_at FROM outbox.event e WHERE e.id = u.id OFFSET 0) e
  ), kind AS MATERIALIZED (
    SELECT k.tenant, k.type, (SELECT count(*) FROM outbox.certain_routes(k.tenant, k.type)) AS pairs
    FROM (SELECT DISTINCT c.tenant, c.type FROM cut c) k
  )
  SELECT max(f.place), min(f.created_at), max(f.created_at) INTO fitting, first_at, last_at
  FROM (SELECT c.place, c.created_at, sum(k.pairs) OVER (ORDER BY c.place) AS pairs
        FROM cut c JOIN kind k ON k.tenant = c.tenant AND k.type = c.type) f
  WHERE f.pairs <= max_pairs OR f.place = 1;
  IF fitting IS NULL OR (cardinality(next.ids) < max_events AND first_at > now - settled_for) THEN
    RETURN;
  ELSIF fitting < cardinality(next.ids) THEN
    next := outbox.cut_since(before.done, before.target, before.after_tx, before.after_id, last, fitting);
  END IF;

  RETURN QUERY
    WITH owed AS MATERIALIZED (
      SELECT o.event_id, o.endpoint_id FROM outbox.owed(next.ids) o
    ), done AS MATERIALIZED (
      SELECT d.event_id, d.endpoint_id FROM outbox.delivered(next.ids, first_at - interval '1 hour') d  -- nearly all are
    ), other AS MATERIALIZED (
      SELECT array_agg(o.event_id) AS events, array_agg(o.endpoint_id) AS endpoints
      FROM owed o WHERE (o.event_id, o.endpoint_id) NOT IN (SELECT d.event_id, d.endpoint_id FROM done d)
    ), pair AS MATERIALIZED (
      SELECT s.event_id, s.endpoint_id, s.state FROM other o
      CROSS JOIN LATERAL outbox.pair_states(o.events, o.endpoints, first_at - interval '1 hour') s
    )
    INSERT INTO outbox.proof (done, target, after_tx, after_id, events, oldest, newest, delivered, dead, waiting, in_flight,
      missing, skipped, open_events, open_endpoints, began_at, proved_at, due_at)
    SELECT next.done, next.target, next.after_tx, next.after_id, cardinality(next.ids), first_at, last_at,
           (SELECT count(*) FROM owed) - (SELECT coalesce(cardinality(o.events), 0) FROM other o)
             + count(*) FILTER (WHERE s.state = 'delivered'), count(*) FILTER (WHERE s.state = 'dead'),
           count(*) FILTER (WHERE s.state = 'waiting'), count(*) FILTER (WHERE s.state = 'in_flight'),
           count(*) FILTER (WHERE s.state = 'missing'), count(*) FILTER (WHERE s.state = 'skipped'),
           array_agg(s.event_id) FILTER (WHERE s.state IN ('waiting', 'in_flight', 'missing')),
           array_agg(s.endpoint_id) FILTER (WHERE s.state IN ('waiting', 'in_flight', 'missing')),
           now, now, CASE WHEN bool_or(s.state IN ('waiting', 'in_flight', 'missing')) THEN outbox.next_look(now, now) END
    FROM pair s RETURNING *;
END $$;

-- Looks again, whether they are due or not, at open pairs of a period that nobody has looked at since `before`. One call takes
-- as many rows of the ledger as have 100,000 such pairs together, and returns them; call it until it returns nothing.
-- Locks: the prover's; waits for it.
-- SECURITY DEFINER: as outbox.prove.
CREATE FUNCTION outbox.prove_again(
  since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity', before timestamptz DEFAULT 'infinity'
) RETURNS SETOF outbox.proof
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  entry record;
  pairs bigint := 0;
BEGIN
  PERFORM outbox.require_read_committed();
  PERFORM pg_advisory_xact_lock(1296126548, 6);
  FOR entry IN
    SELECT p.id, p.waiting + p.in_flight + p.missing AS pairs FROM outbox.proof p
    WHERE p.due_at IS NOT NULL AND p.proved_at < prove_again.before AND p.newest >= since AND p.oldest < until ORDER BY p.id
  LOOP
    EXIT WHEN pairs > 0 AND pairs + entry.pairs > 100000;
    pairs := pairs + entry.pairs;
    RETURN QUERY SELECT * FROM outbox.prove_row(entry.id);
  END LOOP;
END $$;

-- Refuses a period that has no instant in it.
CREATE FUNCTION outbox.require_period(since timestamptz, until timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF since IS NULL OR until IS NULL OR since >= until THEN
    RAISE EXCEPTION 'the period is empty: it begins at % and ends at %', since, until USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

-- The equation of a period, from the tables alone: pairs = delivered + waiting + in flight + dead, and `missing`, which must
-- be 0. Sums the rows of the ledger that lie in the period or reach into it, whole; `oldest` and `newest` say of which
-- events that makes it speak. Of what was cut since the last row, at most `max_events` events, looks at each: so `unproved` many. What the
-- ledger misses is looked at again, too, and `missing_pairs` names up to `max_named` as event/endpoint.
--   as_of           of the pairs that the ledger knows to wait or to fly, when somebody last looked; null: none do
--   complete        false: more was cut since the last row than `max_events`
--   begins          events before are not in the ledger, and nothing is said of them
--   unproved_since  the oldest event of which the ledger does not know yet, of this period or not
-- Cost: a row of the ledger for some thousand events, and a few index probes for each pair that is not in it yet.
CREATE FUNCTION outbox.conservation(
  since timestamptz, until timestamptz DEFAULT 'infinity', max_events int DEFAULT 100000, max_named int DEFAULT 100
) RETURNS TABLE (events bigint, oldest timestamptz, newest timestamptz, pairs bigint, delivered bigint, waiting bigint, in_flight bigint,
                 dead bigint, missing bigint, missing_pairs text[], skipped bigint, rows bigint, unproved bigint, as_of timestamptz,
                 complete boolean, begins timestamptz, unproved_since timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  last outbox.position;
  next record;
BEGIN
  PERFORM outbox.require_period(conservation.since, conservation.until);
  SELECT * INTO last FROM outbox.position ORDER BY id DESC LIMIT 1;
  SELECT c.* INTO next FROM outbox.proof p
  CROSS JOIN LATERAL outbox.cut_since(p.done, p.target, p.after_tx, p.after_id, last, conservation.max_events) c
  ORDER BY p.id DESC LIMIT 1;
  RETURN QUERY
    WITH young AS MATERIALIZED (
      SELECT e.id, e.created_at FROM unnest(next.ids) u(id)
      CROSS JOIN LATERAL (SELECT e.id, e.created_at FROM outbox.event e WHERE e.id = u.id OFFSET 0) e
    ), fresh AS MATERIALIZED (
      SELECT y.id, y.created_at FROM young y WHERE y.created_at >= conservation.since AND y.created_at < conservation.until
    ), owed AS MATERIALIZED (
      SELECT array_agg(o.event_id) AS events, array_agg(o.endpoint_id) AS endpoints FROM outbox.owed(ARRAY(SELECT f.id FROM fresh f)) o
    ), entry AS MATERIALIZED (
      SELECT p.id, p.events, p.oldest, p.newest, p.delivered, p.dead, p.skipped, p.due_at, p.proved_at, p.missing > 0 AS has_missing,
             p.waiting, p.in_flight
      FROM outbox.proof p WHERE p.newest >= conservation.since AND p.oldest < conservation.until
    ), pair AS MATERIALIZED (
      SELECT s.event_id, s.endpoint_id, s.state FROM owed o
      CROSS JOIN LATERAL outbox.pair_states(o.events, o.endpoints, (SELECT min(f.created_at) - interval '1 hour' FROM fresh f)) s
      UNION ALL
      SELECT s.event_id, s.endpoint_id, s.state FROM outbox.proof p
      CROSS JOIN LATERAL outbox.pair_states(p.open_events, p.open_endpoints, p.proved_at - interval '1 hour') s
      WHERE p.id IN (SELECT n.id FROM entry n WHERE n.has_missing)
    ), here AS (
      SELECT count(*) FILTER (WHERE s.state = 'delivered') AS delivered, count(*) FILTER (WHERE s.state = 'dead') AS dead,
             count(*) FILTER (WHERE s.state = 'waiting') AS waiting, count(*) FILTER (WHERE s.state = 'in_flight') AS in_flight,
             count(*) FILTER (WHERE s.state = 'missing') AS missing, count(*) FILTER (WHERE s.state = 'skipped') AS skipped,
             array_agg(s.event_id || '/' || s.endpoint_id ORDER BY s.event_id, s.endpoint_id) FILTER (WHERE s.state = 'missing') AS missing_pairs
      FROM pair s
    ), ledger AS (
      SELECT count(*) AS rows, coalesce(sum(n.events), 0) AS events, min(n.oldest) AS oldest, max(n.newest) AS newest,
             coalesce(sum(n.delivered), 0) AS delivered, coalesce(sum(n.dead), 0) AS dead, coalesce(sum(n.skipped), 0) AS skipped,
             coalesce(sum(n.waiting) FILTER (WHERE NOT n.has_missing), 0) AS waiting,
             coalesce(sum(n.in_flight) FILTER (WHERE NOT n.has_missing), 0) AS in_flight,
             min(n.proved_at) FILTER (WHERE n.due_at IS NOT NULL AND NOT n.has_missing) AS as_of
      FROM entry n
    )
    SELECT (l.events + y.events)::bigint, least(l.oldest, y.oldest), greatest(l.newest, y.newest),
           (l.delivered + h.delivered + l.dead + h.dead + l.waiting + h.waiting + l.in_flight + h.in_flight + h.missing)::bigint,
           (l.delivered + h.delivered)::bigint, (l.waiting + h.waiting)::bigint, (l.in_flight + h.in_flight)::bigint,
           (l.dead + h.dead)::bigint, h.missing, h.missing_pairs[1:conservation.max_named], (l.skipped + h.skipped)::bigint,
           l.rows, y.events, l.as_of, coalesce(cardinality(next.ids) < conservation.max_events, true),
           (SELECT coalesce(p.oldest, p.proved_at) FROM outbox.proof p ORDER BY p.id LIMIT 1),
           (SELECT min(y.created_at) FROM young y)
    FROM ledger l, here h,
      (SELECT count(*) AS events, min(f.created_at) AS oldest, max(f.created_at) AS newest FROM fresh f) y;
END $$;

-- Puts the deliveries that outbox.conservation misses in a period, and no others, back into outbox.delivery, due now; returns
-- them. Whose history was deleted before they were proved may arrive a second time. One repair at a time: the next sees
-- what the last put back.
CREATE FUNCTION outbox.repair(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity', max_events int DEFAULT 100000)
RETURNS TABLE (event_id uuid, endpoint_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  events uuid[];
  endpoints bigint[];
  keys text[];
BEGIN
  PERFORM outbox.do_not_linger();
  PERFORM outbox.require_read_committed();
  PERFORM pg_advisory_xact_lock(1296126548, 5);
  PERFORM outbox.stamp_subscriptions();
  SELECT array_agg(e.id ORDER BY e.id), array_agg(ep.id ORDER BY e.id), array_agg(CASE WHEN ep.ordered THEN e.key END ORDER BY e.id)
  INTO events, endpoints, keys
  FROM outbox.conservation(repair.since, repair.until, repair.max_events, 2147483647) c
  CROSS JOIN LATERAL unnest(c.missing_pairs) m(pair)
  JOIN outbox.event e ON e.id = split_part(m.pair, '/', 1)::uuid
  JOIN outbox.endpoint ep ON ep.id = split_part(m.pair, '/', 2)::bigint;
  IF events IS NOT NULL THEN
    PERFORM outbox.park(events, endpoints, keys, array_fill(clock_timestamp(), ARRAY[cardinality(events)]));
  END IF;
  RETURN QUERY SELECT u.event, u.endpoint FROM unnest(events, endpoints) u(event, endpoint);
END $$;

GRANT SELECT ON outbox.proof, outbox.skipped TO outbox_dispatcher, outbox_operator;
GRANT INSERT ON outbox.skipped TO outbox_dispatcher;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.cut_since, outbox.certain_routes, outbox.owed, outbox.delivered, outbox.pair_states, outbox.prove,
  outbox.prove_again, outbox.require_period, outbox.conservation, outbox.repair TO outbox_dispatcher, outbox_operator;
COMMIT;
