-- Martlet 0011: the record, which writes what became of deliveries.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(11, 'record');

-- Whether a try is a first one that succeeded, straight from the log, of which nothing more is to be said. Plain SQL, inlined.
CREATE FUNCTION outbox.may_be_packed(batch bigint, outcome text, attempt int, error text, response text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT outcome OPERATOR(pg_catalog.=) 'delivered'::pg_catalog.text AND attempt OPERATOR(pg_catalog.=) 1
    AND batch IS NOT NULL AND error IS NULL AND response IS NULL
$$;

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
-- Indexes: delivery_pkey, delivery_key, event_pkey, batch_pkey, endpoint_pkey, endpoint_health_pkey; if `again`,
-- attempt_packed_second and attempt_single_event.
--
-- Deliveries are found by their key, never by their holder, hence IS NOT DISTINCT FROM: statistics of a moment when nobody holds
-- any promise a single row, and each outcome would be compared with all that is held.
--
-- Packs what may be packed where there are at least `worth_packing` of a batch and a second (outbox.attempt_packed).
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
  worth_packing CONSTANT int := 4;
  packed int := 0;
  packed_batches bigint[]; packed_seconds bigint[];
  dead bigint[];
  doomed bigint[];
  done_endpoints bigint[]; done_keys text[]; done_places bigint[];
BEGIN
  PERFORM outbox.hold_lease(dispatcher, resyncs);
  PERFORM pg_advisory_xact_lock(1296126551, outbox.lock_number(dispatcher));
  IF again AND EXISTS (
    SELECT FROM outbox.attempt_single a
    WHERE a.event_id = event_ids[1] AND a.endpoint_id = endpoint_ids[1] AND a.attempt = attempts[1]
      AND a.outcome::text = outcomes[1] AND a.dispatcher_id = dispatcher AND a.batch_id IS NOT DISTINCT FROM batch_ids[1]
      AND a.duration_ms IS NOT DISTINCT FROM durations_ms[1]
    UNION ALL
    SELECT FROM outbox.attempt_unpacked a
    WHERE a.second = outbox.uuid_second(event_ids[1]) AND a.batch_id = batch_ids[1] AND a.event_id = event_ids[1]
      AND a.endpoint_id = endpoint_ids[1] AND outcomes[1] = 'delivered')
    -- A claimed delivery may have been claimed before and have come to the same: then we hold it still.
    AND NOT (batch_ids[1] IS NULL AND EXISTS (
      SELECT FROM outbox.delivery d
      WHERE d.event_id = event_ids[1] AND d.endpoint_id = endpoint_ids[1] AND d.dispatcher_id IS NOT DISTINCT FROM dispatcher)) THEN
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

  IF cardinality(event_ids) >= worth_packing THEN
    WITH row AS (
      INSERT INTO outbox.attempt_packed (second, batch_id, dispatcher_id, event_ids, endpoint_ids, durations_ms, statuses)
      SELECT outbox.uuid_second(u.event), u.batch, dispatcher,
             array_agg(u.event), array_agg(u.endpoint), array_agg(u.duration), array_agg(u.status)
      FROM unnest(event_ids, endpoint_ids, batch_ids, outcomes, durations_ms, attempts, statuses, errors, responses)
        u(event, endpoint, batch, outcome, duration, attempt, status, error, response)
      WHERE outbox.may_be_packed(u.batch, u.outcome, u.attempt, u.error, u.response)
      GROUP BY outbox.uuid_second(u.event), u.batch HAVING count(*) >= worth_packing
      RETURNING second, batch_id, cardinality(event_ids) AS size
    )
    SELECT array_agg(r.second), array_agg(r.batch_id), coalesce(sum(r.size), 0) INTO packed_seconds, packed_batches, packed FROM row r;
  END IF;
  IF packed < cardinality(event_ids) THEN
    INSERT INTO outbox.attempt_single (event_id, endpoint_id, batch_id, dispatcher_id, outcome, duration_ms, attempt, status, error, response)
    SELECT u.event, u.endpoint, u.batch, dispatcher, u.outcome::outbox.outcome, u.duration, u.attempt, u.status, u.error, u.response
    FROM unnest(event_ids, endpoint_ids, batch_ids, outcomes, durations_ms, attempts, statuses, errors, responses)
      u(event, endpoint, batch, outcome, duration, attempt, status, error, response)
    WHERE packed = 0 OR NOT outbox.may_be_packed(u.batch, u.outcome, u.attempt, u.error, u.response)
      OR NOT EXISTS (SELECT FROM unnest(packed_seconds, packed_batches) p(second, batch)
                     WHERE p.second = outbox.uuid_second(u.event) AND p.batch = u.batch);
  END IF;

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
          (SELECT min(a.at) FROM outbox.attempt_single a WHERE a.event_id = u.event AND a.endpoint_id = u.endpoint AND a.outcome = 'failed'),
          (SELECT d.seq FROM outbox.delivery d
           WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint AND d.dispatcher_id IS NOT DISTINCT FROM dispatcher AND d.key IS NOT NULL
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
      WHERE d.event_id = u.event AND d.endpoint_id = u.endpoint AND d.dispatcher_id IS NOT DISTINCT FROM dispatcher
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
COMMIT;
