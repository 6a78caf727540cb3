-- Martlet 0005: filters, evaluated while others wait for the cut.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(5, 'filter');

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
COMMIT;
