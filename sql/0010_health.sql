-- Martlet 0010: the health of endpoints, and Martlet's own events about it.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(10, 'health');

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
COMMIT;
