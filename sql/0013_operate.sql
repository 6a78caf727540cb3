-- Martlet 0013: what an operator looks at and repairs with.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(13, 'operate');

-- One dead letter back to delivery, with a fresh set of attempts. If its event has expired meanwhile, it is put back into
-- the log from the dead letter, marked as cut long ago, so that nobody else gets it again. One that held its key takes up
-- its place there, before all that waits for it; another one goes to the end.
CREATE FUNCTION outbox.redrive(dead_letter bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF outbox.redrive_all(ARRAY[dead_letter]) = 0 THEN
    RAISE EXCEPTION 'there is no dead letter % whose endpoint still exists', dead_letter
      USING ERRCODE = 'no_data_found', HINT = 'SELECT id, reason, url, last_error FROM outbox.dead_letter';
  END IF;
END $$;

CREATE FUNCTION outbox.redrive_all(dead_letters bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  events uuid[];
  endpoints bigint[];
  keys text[];
  places bigint[];
BEGIN
  PERFORM outbox.do_not_linger();
  -- Maintenance, which deletes expired events, waits until this is committed, or we for it: an event is there or put back.
  PERFORM pg_advisory_xact_lock_shared(1296126548, 2);
  PERFORM pg_advisory_xact_lock(1296126550, k.number)
  FROM (SELECT DISTINCT outbox.lock_number(l.endpoint_id) AS number FROM outbox.dead_letter l
        WHERE l.id = ANY (dead_letters) AND l.key IS NOT NULL
          AND EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = l.endpoint_id AND e.ordered) ORDER BY 1) k;
  WITH revived AS (
    -- What cannot be sent, because its endpoint was deleted, stays.
    DELETE FROM outbox.dead_letter l
    WHERE l.id = ANY (dead_letters) AND EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = l.endpoint_id) RETURNING l.*
  ), restored AS (
    INSERT INTO outbox.event (id, tx, created_at, type, tenant, key, payload, metadata)
    SELECT DISTINCT ON (r.event_id) r.event_id, '3'::xid8, r.created_at, r.type, r.tenant, r.key, r.payload, r.metadata FROM revived r
    WHERE NOT EXISTS (SELECT FROM outbox.event e WHERE e.id = r.event_id)
  )
  SELECT array_agg(r.event_id ORDER BY r.event_id), array_agg(r.endpoint_id ORDER BY r.event_id),
         array_agg(CASE WHEN ep.ordered THEN r.key END ORDER BY r.event_id),
         array_agg(CASE WHEN ep.ordered THEN r.seq END ORDER BY r.event_id)
  INTO events, endpoints, keys, places
  FROM revived r JOIN outbox.endpoint ep ON ep.id = r.endpoint_id;
  IF events IS NULL THEN
    RETURN 0;
  END IF;
  PERFORM outbox.park(events, endpoints, keys, array_fill(clock_timestamp(), ARRAY[cardinality(events)]), places);
  IF array_remove(places, NULL) <> '{}' THEN
    PERFORM outbox.forgive_waiting(array_agg(u.endpoint), array_agg(u.key))
    FROM unnest(endpoints, keys, places) u(endpoint, key, place) WHERE u.place IS NOT NULL;
  END IF;
  RETURN cardinality(events);
END $$;

-- Many at once; null means any. Returns how many.
CREATE FUNCTION outbox.redrive_where(
  endpoint bigint DEFAULT NULL, reason text DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT outbox.redrive_all(ARRAY(
    SELECT l.id FROM outbox.dead_letter l
    WHERE (endpoint IS NULL OR l.endpoint_id = endpoint)
      AND (l.reason = redrive_where.reason OR (redrive_where.reason IS NULL AND l.reason <> 'discarded'))
      AND l.died_at >= since AND l.died_at < until
    ORDER BY l.id))
$$;

-- Nobody wants this one any more. It stays, marked, until dead letters of its age are deleted: the books still balance. If
-- later events of its key waited for it, the next one may be sent.
CREATE FUNCTION outbox.discard(dead_letter bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  letter outbox.dead_letter;
BEGIN
  PERFORM outbox.do_not_linger();
  PERFORM pg_advisory_xact_lock(1296126550, outbox.lock_number(l.endpoint_id))
  FROM outbox.dead_letter l WHERE l.id = discard.dead_letter AND l.seq IS NOT NULL;
  SELECT * INTO letter FROM outbox.dead_letter l WHERE l.id = discard.dead_letter FOR UPDATE;
  UPDATE outbox.dead_letter l SET reason = 'discarded', seq = NULL WHERE l.id = discard.dead_letter;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no dead letter %', dead_letter
      USING ERRCODE = 'no_data_found', HINT = 'SELECT id, reason, url, last_error FROM outbox.dead_letter';
  END IF;
  IF letter.seq IS NOT NULL THEN
    PERFORM outbox.forgive_waiting(ARRAY[letter.endpoint_id], ARRAY[letter.key]);
    PERFORM outbox.wake(ARRAY[letter.endpoint_id], ARRAY[letter.key], ARRAY[letter.seq]);
  END IF;
END $$;

-- outbox.attempt can be written to by hand, like the table that it once was: an insert goes to attempt_single, a delete takes the
-- try from where it is, an update does both. Nothing of Martlet's does that.
CREATE FUNCTION outbox.change_attempt() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM outbox.attempt_single s
    WHERE s.event_id = OLD.event_id AND s.endpoint_id = OLD.endpoint_id AND s.at = OLD.at AND s.attempt = OLD.attempt
      AND s.outcome = OLD.outcome AND s.dispatcher_id = OLD.dispatcher_id AND s.batch_id IS NOT DISTINCT FROM OLD.batch_id;
    IF NOT FOUND THEN
      UPDATE outbox.attempt_packed p SET (event_ids, endpoint_ids, durations_ms, statuses) = (
        SELECT coalesce(array_agg(u.event_id), '{}'), coalesce(array_agg(u.endpoint_id), '{}'), coalesce(array_agg(u.duration_ms), '{}'),
               coalesce(array_agg(u.status), '{}')
        FROM unnest(p.event_ids, p.endpoint_ids, p.durations_ms, p.statuses) u(event_id, endpoint_id, duration_ms, status)
        WHERE (u.event_id, u.endpoint_id) <> (OLD.event_id, OLD.endpoint_id))
      WHERE p.second = outbox.uuid_second(OLD.event_id) AND p.batch_id = OLD.batch_id AND p.at = OLD.at;
    END IF;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  INSERT INTO outbox.attempt_single (event_id, endpoint_id, batch_id, dispatcher_id, at, outcome, duration_ms, attempt, status, error, response)
  VALUES (NEW.event_id, NEW.endpoint_id, NEW.batch_id, NEW.dispatcher_id, coalesce(NEW.at, clock_timestamp()), NEW.outcome, NEW.duration_ms,
          NEW.attempt, NEW.status, NEW.error, NEW.response);
  RETURN NEW;
END $$;
CREATE TRIGGER attempt_is_changed INSTEAD OF INSERT OR UPDATE OR DELETE ON outbox.attempt
FOR EACH ROW EXECUTE FUNCTION outbox.change_attempt();

-- What waits, per endpoint.
CREATE VIEW outbox.backlog AS
SELECT e.id AS endpoint_id, e.tenant, e.url, e.state,
       count(*) AS waiting,
       count(*) FILTER (WHERE d.ready AND d.dispatcher_id IS NULL AND d.due_at <= clock_timestamp()) AS due,
       count(*) FILTER (WHERE d.dispatcher_id IS NOT NULL) AS claimed,
       count(*) FILTER (WHERE NOT d.ready) AS blocked_by_order,
       min(d.created_at) AS oldest, min(d.due_at) FILTER (WHERE d.ready) AS next_due_at
FROM outbox.delivery d JOIN outbox.endpoint e ON e.id = d.endpoint_id
GROUP BY e.id;

-- Every endpoint: may it be sent to, does it work, since when not, and what has piled up.
CREATE VIEW outbox.endpoint_status AS
SELECT e.id, e.tenant, e.url, e.event_types, e.state, coalesce(h.state, 'closed') AS circuit,
       coalesce(h.consecutive_failures, 0) AS consecutive_failures, h.failing_since, h.last_error, h.probe_at,
       (SELECT count(*) FROM outbox.delivery d WHERE d.endpoint_id = e.id) AS waiting,
       (SELECT count(*) FROM outbox.dead_letter l WHERE l.endpoint_id = e.id AND l.reason <> 'discarded') AS dead_letters,
       h.opened_at, h.window_started_at, h.window_failed, h.window_succeeded, e.rate_limit, e.max_in_flight,
       (SELECT count(*) FROM outbox.dead_letter l WHERE l.endpoint_id = e.id AND l.seq IS NOT NULL) AS held_keys,
       e.disabled_at, e.disabled_because,
       e.filter, coalesce(f.failures, 0) AS filter_failures, f.failed_at AS filter_failed_at, f.error AS filter_error
FROM outbox.endpoint e LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id
LEFT JOIN outbox.filter_failure f ON f.endpoint_id = e.id;

-- Deliveries in flight: pairs of a batch without an outcome, and claimed rows.
CREATE VIEW outbox.in_flight AS
SELECT f.event_id, f.endpoint_id, f.dispatcher_id, f.batch_id, f.since FROM outbox.direct_in_flight f
UNION ALL
SELECT d.event_id, d.endpoint_id, d.dispatcher_id, NULL, d.due_at FROM outbox.delivery d WHERE d.dispatcher_id IS NOT NULL;

-- One row per event and endpoint, whatever has become of it. Ask for an event_id, or a day of them; it is a view of history.
CREATE VIEW outbox.delivery_status AS
SELECT d.event_id, d.endpoint_id,
       CASE WHEN d.dispatcher_id IS NOT NULL THEN 'in_flight' WHEN NOT d.ready THEN 'blocked'
            WHEN d.attempts > 0 THEN 'retrying' ELSE 'waiting' END AS status,
       d.attempts, d.due_at AS next_attempt_at, d.last_status, d.last_error, d.created_at AS since,
       -- What must be delivered or given up first: a dead letter that holds the key, or the first event of it.
       CASE WHEN NOT d.ready THEN coalesce(
         (SELECT 'dead letter ' || l.id FROM outbox.dead_letter l
          WHERE l.endpoint_id = d.endpoint_id AND l.key = d.key AND l.seq < d.seq ORDER BY l.seq LIMIT 1),
         (SELECT 'event ' || p.event_id FROM outbox.delivery p
          WHERE p.endpoint_id = d.endpoint_id AND p.key = d.key AND p.seq < d.seq ORDER BY p.seq LIMIT 1),
         CASE WHEN d.key IS NULL THEN 'the rest of the backlog, which is being cut' END) END AS blocked_by
FROM outbox.delivery d
UNION ALL
SELECT l.event_id, l.endpoint_id, 'dead', l.attempts, NULL, l.last_status, l.reason || coalesce(': ' || l.last_error, ''), l.died_at,
       NULL
FROM outbox.dead_letter l
WHERE NOT EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id = l.event_id AND d.endpoint_id = l.endpoint_id)
UNION ALL
SELECT f.event_id, f.endpoint_id, 'in_flight', 0, NULL, NULL, NULL, f.since, NULL FROM outbox.direct_in_flight f
UNION ALL
SELECT a.event_id, a.endpoint_id, 'delivered', max(a.attempt), NULL, max(a.status), NULL, min(a.at), NULL
FROM outbox.attempt a
WHERE a.outcome = 'delivered'
  AND NOT EXISTS (SELECT FROM outbox.delivery d WHERE d.event_id = a.event_id AND d.endpoint_id = a.endpoint_id)
  AND NOT EXISTS (SELECT FROM outbox.dead_letter l WHERE l.event_id = a.event_id AND l.endpoint_id = a.endpoint_id)
GROUP BY a.event_id, a.endpoint_id;

-- Deliveries that should have moved and have not: due for more than five minutes, though the endpoint is enabled and its
-- circuit closed; or claimed by a dispatcher that is no more.
CREATE VIEW outbox.stuck AS
SELECT d.event_id, d.endpoint_id, e.url, d.attempts, d.due_at, clock_timestamp() - d.due_at AS overdue,
       d.dispatcher_id, d.last_status, d.last_error
FROM outbox.delivery d
JOIN outbox.endpoint e ON e.id = d.endpoint_id AND e.state = 'enabled'
LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id
WHERE d.ready AND d.due_at < clock_timestamp() - interval '5 min'
  AND (coalesce(h.state, 'closed') = 'closed')
  AND (d.dispatcher_id IS NULL OR NOT EXISTS (SELECT FROM outbox.dispatcher x WHERE x.id = d.dispatcher_id AND x.expires_at > clock_timestamp()));

-- Everything known of one event, a row per endpoint and, below it, a row per attempt.
CREATE FUNCTION outbox.explain(event uuid)
RETURNS TABLE (endpoint_id bigint, url text, status text, attempt int, at timestamptz, http_status int, detail text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE e outbox.event; last outbox.position;
BEGIN
  SELECT * INTO e FROM outbox.event x WHERE x.id = event;
  IF e.id IS NULL AND NOT EXISTS (SELECT FROM outbox.dead_letter l WHERE l.event_id = event) THEN
    RAISE EXCEPTION 'there is no event %', event USING ERRCODE = 'no_data_found',
      HINT = 'It was never committed, or it is older than the retention of the log.';
  END IF;
  SELECT * INTO last FROM outbox.position ORDER BY id DESC LIMIT 1;
  IF e.id IS NOT NULL AND NOT pg_visible_in_snapshot(e.tx, last.done)
     AND NOT (last.after_tx IS NOT NULL AND pg_visible_in_snapshot(e.tx, last.target) AND (e.tx, e.id) <= (last.after_tx, last.after_id)) THEN
    status := 'not cut yet'; at := e.created_at; detail := 'committed; no dispatcher has taken it from the log so far';
    RETURN NEXT;
  END IF;
  RETURN QUERY
    SELECT s.endpoint_id, ep.url, s.status, s.attempts::int, s.since, s.last_status::int,
      CASE s.status
        WHEN 'blocked' THEN CASE
          WHEN s.blocked_by LIKE 'dead letter %' THEN format('waits for %1$s of the same key: outbox.redrive(%2$s) sends that again, outbox.discard(%2$s) lets this one pass',
            s.blocked_by, substr(s.blocked_by, length('dead letter ') + 1))
          ELSE format('waits for %s of the same key', coalesce(s.blocked_by, 'nothing that is there; see outbox.reconcile()')) END
        WHEN 'dead' THEN concat_ws('; ', s.last_error, (
          SELECT format('later events of its key wait for it: outbox.redrive(%1$s) sends it again, outbox.discard(%1$s) lets them pass', l.id)
          FROM outbox.dead_letter l WHERE l.event_id = event AND l.endpoint_id = s.endpoint_id AND l.seq IS NOT NULL))
        WHEN 'waiting' THEN concat_ws('; ', 'next attempt ' || s.next_attempt_at,
          CASE WHEN ep.state <> 'enabled' THEN 'the endpoint is ' || ep.state END,
          CASE WHEN ep.rate_limit IS NOT NULL THEN 'no more than ' || ep.rate_limit || ' a second' END,
          CASE WHEN h.state <> 'closed' THEN 'the circuit is ' || h.state || coalesce(', probed at ' || h.probe_at, '') END)
        WHEN 'retrying' THEN concat_ws('; ', 'next attempt ' || s.next_attempt_at,
          CASE WHEN ep.state <> 'enabled' THEN 'the endpoint is ' || ep.state END,
          CASE WHEN ep.rate_limit IS NOT NULL THEN 'no more than ' || ep.rate_limit || ' a second' END,
          CASE WHEN h.state <> 'closed' THEN 'the circuit is ' || h.state || coalesce(', probed at ' || h.probe_at, '') END, s.last_error)
        ELSE s.last_error END
    FROM outbox.delivery_status s LEFT JOIN outbox.endpoint ep ON ep.id = s.endpoint_id
    LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = s.endpoint_id
    WHERE s.event_id = event ORDER BY s.endpoint_id;
  RETURN QUERY
    SELECT a.endpoint_id, NULL::text, 'attempt: ' || a.outcome, a.attempt::int, a.at, a.status::int,
      concat_ws('; ', a.duration_ms || ' ms', a.error, 'answer: ' || a.response)
    FROM outbox.attempt a WHERE a.event_id = event ORDER BY a.endpoint_id, a.at;
END $$;
COMMIT;
