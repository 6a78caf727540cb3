-- Martlet 0016: sending again, sending a test, and taking an endpoint away.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(16, 'replay');

-- Puts events back into delivery for one endpoint, in the order of their ids, with a fresh set of attempts. Left alone is
-- what waits or is in flight there already, and what was not cut yet: that comes by itself. A dead letter of it goes; if that
-- held its key, the event takes up its place there.
-- Returns how many.
CREATE FUNCTION outbox.send_again(endpoint bigint, events uuid[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_ordered boolean := (SELECT e.ordered FROM outbox.endpoint e WHERE e.id = send_again.endpoint);
  again uuid[];
  keys text[];
  held_events uuid[]; held_keys text[]; held_places bigint[];
BEGIN
  PERFORM outbox.do_not_linger();
  IF is_ordered IS NULL THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  END IF;
  IF is_ordered THEN
    PERFORM pg_advisory_xact_lock(1296126550, outbox.lock_number(send_again.endpoint));
  END IF;
  WITH busy AS MATERIALIZED (
    SELECT f.event_id FROM outbox.in_flight f WHERE f.endpoint_id = send_again.endpoint
  )
  SELECT array_agg(e.id ORDER BY e.id), array_agg(CASE WHEN is_ordered THEN e.key END ORDER BY e.id) INTO again, keys
  FROM outbox.event e, LATERAL (SELECT p.* FROM outbox.position p ORDER BY p.id DESC LIMIT 1) p
  WHERE e.id = ANY (send_again.events) AND e.id NOT IN (SELECT b.event_id FROM busy b)
    AND (pg_visible_in_snapshot(e.tx, p.done)
         OR (pg_visible_in_snapshot(e.tx, p.target) AND (e.tx, e.id) <= (p.after_tx, p.after_id)))
    AND NOT EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id = e.id AND d.endpoint_id = send_again.endpoint);
  IF again IS NULL THEN
    RETURN 0;
  END IF;
  WITH gone AS (
    DELETE FROM outbox.dead_letter l WHERE l.endpoint_id = send_again.endpoint AND l.event_id = ANY (again) RETURNING l.event_id, l.key, l.seq
  ) SELECT array_agg(g.event_id), array_agg(g.key), array_agg(g.seq) INTO held_events, held_keys, held_places
    FROM gone g WHERE g.seq IS NOT NULL AND is_ordered;
  PERFORM outbox.park(again, array_fill(send_again.endpoint, ARRAY[cardinality(again)]), keys,
                      array_fill(clock_timestamp(), ARRAY[cardinality(again)]),
                      ARRAY(SELECT held_places[array_position(held_events, a.id)] FROM unnest(again) WITH ORDINALITY a(id, ord) ORDER BY a.ord));
  IF held_keys IS NOT NULL THEN
    PERFORM outbox.forgive_waiting(array_fill(send_again.endpoint, ARRAY[cardinality(held_keys)]), held_keys);
  END IF;
  RETURN cardinality(again);
END $$;

-- Sends an endpoint the events of a period again, those of its types (or of `types`) and its tenant that its filter matches,
-- delivered before or not: after a receiver lost what it had, or for a new endpoint that wants the past. Events not cut yet come by themselves.
-- At most `max_events`, the oldest first. Returns how many.
CREATE FUNCTION outbox.replay(
  endpoint bigint, since timestamptz, until timestamptz DEFAULT 'infinity', types text[] DEFAULT NULL, max_events int DEFAULT 1000000
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target outbox.endpoint;
  problem CONSTANT text := outbox.event_types_problem(types);
BEGIN
  SELECT * INTO target FROM outbox.endpoint e WHERE e.id = replay.endpoint;
  IF target.id IS NULL THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  ELSIF types IS NOT NULL AND problem IS NOT NULL THEN
    RAISE EXCEPTION 'the event types are not usable: %', problem USING ERRCODE = 'check_violation';
  ELSIF since IS NULL OR until IS NULL OR since >= until THEN
    RAISE EXCEPTION 'the period is empty: it begins at % and ends at %', since, until USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN outbox.send_again(replay.endpoint, ARRAY(
    SELECT e.id FROM outbox.event e
    WHERE e.id >= outbox.uuid_floor(since) AND e.id <= outbox.uuid_floor(until) AND e.created_at >= since AND e.created_at < until
      AND e.tenant = target.tenant AND outbox.patterns(e.type) && coalesce(types, target.event_types)
      AND (target.filter IS NULL OR outbox.matches(
            target.filter, outbox.filter_document(e.type, e.tenant, e.key, e.payload, e.metadata)))
    ORDER BY e.id LIMIT max_events));
END $$;

-- Sends one event again, to all endpoints that are subscribed to it now, with filters that it matches; or to the endpoint
-- named, whatever its types and its filter say. Returns to how many.
CREATE FUNCTION outbox.resend(event uuid, endpoint bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM outbox.event e WHERE e.id = resend.event) THEN
    RAISE EXCEPTION 'there is no event %', event USING ERRCODE = 'no_data_found',
      HINT = 'It was never committed, or it is older than the retention of the log; a dead letter of it can be redriven.';
  END IF;
  IF endpoint IS NOT NULL THEN
    RETURN outbox.send_again(resend.endpoint, ARRAY[resend.event]);
  END IF;
  RETURN (SELECT coalesce(sum(outbox.send_again(t.id, ARRAY[resend.event])), 0)
          FROM (SELECT DISTINCT s.endpoint_id AS id FROM outbox.event e
                JOIN outbox.subscription s ON s.tenant = e.tenant AND s.pattern = ANY (outbox.patterns(e.type))
                WHERE e.id = resend.event
                  AND (s.filter IS NULL OR outbox.matches(
                        s.filter, outbox.filter_document(e.type, e.tenant, e.key, e.payload, e.metadata)))
                ORDER BY 1) t);
END $$;

-- Sends an endpoint a signed test event of type martlet.ping, and nobody else. Returns the event's id: outbox.explain tells
-- what came of it.
CREATE FUNCTION outbox.ping(endpoint bigint) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE event uuid;
BEGIN
  IF NOT EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = ping.endpoint) THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  END IF;
  -- 3 is the first normal transaction id: cut long ago, as far as any dispatcher is concerned.
  INSERT INTO outbox.event (tx, type, tenant, payload)
  SELECT '3', 'martlet.ping', e.tenant, jsonb_build_object('endpoint', e.id) FROM outbox.endpoint e WHERE e.id = ping.endpoint
  RETURNING id INTO event;
  INSERT INTO outbox.delivery (event_id, endpoint_id, due_at) VALUES (event, ping.endpoint, clock_timestamp());
  RETURN event;
END $$;

-- When an endpoint's failed deliveries are tried again: the pause before each attempt, and the time since the first, jitter
-- aside. The same arithmetic as RetryPolicy.swift: what `retry_delays` says, or else exponential backoff.
CREATE FUNCTION outbox.retry_schedule(endpoint bigint) RETURNS TABLE (attempt int, pause interval, after interval)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE tries AS (
    SELECT 1 AS attempt, interval '0' AS pause, interval '0' AS after, extract(epoch FROM e.first_delay)::float8 AS next,
           coalesce(cardinality(e.retry_delays) + 1, e.max_attempts) AS attempts, e
    FROM outbox.endpoint e WHERE e.id = retry_schedule.endpoint
    UNION ALL
    SELECT t.attempt + 1, make_interval(secs => p.pause), t.after + make_interval(secs => p.pause),
           least(t.next * (t.e).multiplier, extract(epoch FROM (t.e).longest_delay)::float8), t.attempts, t.e
    FROM tries t, LATERAL (
      -- The first element of an array need not have the number 1.
      SELECT coalesce(extract(epoch FROM (t.e).retry_delays[array_lower((t.e).retry_delays, 1) + t.attempt - 1])::float8,
                      least(t.next, extract(epoch FROM (t.e).longest_delay)::float8)) AS pause) p
    WHERE t.attempt < t.attempts AND t.after + make_interval(secs => p.pause) <= (t.e).max_age
  )
  SELECT t.attempt, t.pause, t.after FROM tries t ORDER BY t.attempt
$$;

-- Takes an endpoint away, with its secrets. Refuses while deliveries wait for it, unless they shall become dead letters
-- (reason discarded); refuses while some are in flight. History and dead letters stay. Returns how many were discarded.
CREATE FUNCTION outbox.delete_endpoint(endpoint bigint, discard_waiting boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  waiting bigint;
  flying bigint;
BEGIN
  -- Disabled first: no cut hands it anything from here on. The lock keeps an ordered endpoint's record out.
  PERFORM outbox.set_endpoint_state(delete_endpoint.endpoint, 'disabled');
  PERFORM pg_advisory_xact_lock(1296126548, 0), pg_advisory_xact_lock(1296126550, outbox.lock_number(delete_endpoint.endpoint));
  SELECT count(*) INTO flying FROM outbox.in_flight f WHERE f.endpoint_id = delete_endpoint.endpoint;
  SELECT count(*) INTO waiting FROM outbox.delivery d WHERE d.endpoint_id = delete_endpoint.endpoint;
  IF flying > 0 THEN
    RAISE EXCEPTION '% deliveries to endpoint % are in flight', flying, endpoint USING ERRCODE = 'object_in_use',
      HINT = format('SELECT outbox.disable(%s), wait a moment, and delete it then.', endpoint);
  ELSIF waiting > 0 AND NOT discard_waiting THEN
    RAISE EXCEPTION '% deliveries wait for endpoint %', waiting, endpoint USING ERRCODE = 'object_in_use',
      HINT = format('SELECT outbox.delete_endpoint(%s, discard_waiting => true) makes them dead letters.', endpoint);
  END IF;
  DELETE FROM outbox.endpoint e WHERE e.id = delete_endpoint.endpoint;
  RETURN waiting;
END $$;

GRANT DELETE ON outbox.endpoint TO outbox_operator;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.send_again, outbox.replay, outbox.resend, outbox.ping, outbox.retry_schedule, outbox.delete_endpoint
  TO outbox_operator;
COMMIT;
