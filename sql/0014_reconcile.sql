-- Martlet 0014: the reconciler: says what the proof misses (0019), and what is stuck or failing.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(14, 'reconcile');

-- What outbox.reconcile returns, unsorted. `severity`: critical (events are lost, or nothing moves), warning (somebody should
-- look), unchecked (it could not be checked, which is not health), info, ok. `finding` is a stable name for programs, `detail`
-- plain words, `remedy` what to do: statements in it end with a semicolon and can be typed as they are.
CREATE FUNCTION outbox.findings(
  since interval DEFAULT '1 hour', uncut_after interval DEFAULT '1 min',
  overdue_after interval DEFAULT '5 min', failing_after interval DEFAULT '5 min', transaction_after interval DEFAULT '10 min'
) RETURNS TABLE (severity text, finding text, subject text, detail text, remedy text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  now CONSTANT timestamptz := clock_timestamp();
  last outbox.position;
BEGIN
  SELECT * INTO last FROM outbox.position ORDER BY id DESC LIMIT 1;

  RETURN QUERY SELECT 'critical', 'restored copy', 'database', p,
    'If this copy shall send, as the owner of the schema: SELECT outbox.reanchor(''now''); or SELECT outbox.reanchor(''last_cut''); then start a dispatcher.'
    FROM outbox.anchor_problem() p WHERE p IS NOT NULL;

  RETURN QUERY
    SELECT CASE WHEN EXISTS (SELECT FROM outbox.delivery) OR EXISTS (SELECT FROM outbox.batch) OR u.waits THEN 'critical' ELSE 'warning' END,
      'no live dispatcher', 'dispatchers',
      'no dispatcher has a valid lease; nothing is being delivered' || coalesce('; the last lease ran out at ' || (SELECT max(expires_at) FROM outbox.dispatcher), ''),
      'Start one: martlet dispatch. If one should be running, look at its log.'
    FROM (SELECT EXISTS (SELECT FROM outbox.event e WHERE e.tx >= pg_snapshot_xmax(last.done) AND pg_visible_in_snapshot(e.tx, pg_current_snapshot())) AS waits) u
    WHERE NOT EXISTS (SELECT FROM outbox.dispatcher d WHERE d.expires_at > now);

  RETURN QUERY
    SELECT 'warning', 'expired lease', format('dispatcher %s (%s on %s, pid %s)', d.id, d.name, d.host, d.pid),
      format('its lease ran out at %s and nobody has taken over the %s deliveries it holds', d.expires_at,
        (SELECT count(*) FROM outbox.in_flight f WHERE f.dispatcher_id = d.id)),
      'Any live dispatcher takes over by itself within seconds; by hand: SELECT * FROM outbox.recover();'
    FROM outbox.dispatcher d WHERE d.expires_at < now - interval '15 s';

  RETURN QUERY
    SELECT 'critical', 'orphaned deliveries', format('dispatcher %s', f.dispatcher_id),
      format('%s deliveries are held by a dispatcher that does not exist, since %s', count(*), min(f.since)),
      format('SELECT outbox.release(%s); makes them available again.', f.dispatcher_id)
    FROM outbox.in_flight f
    WHERE NOT EXISTS (SELECT FROM outbox.dispatcher d WHERE d.id = f.dispatcher_id)
    GROUP BY f.dispatcher_id;

  RETURN QUERY
    WITH fresh AS (
      (SELECT e.id, e.tx, e.created_at FROM unnest(ARRAY(SELECT pg_snapshot_xip(last.done))) l(tx) JOIN outbox.event e ON e.tx = l.tx LIMIT 1000)
      UNION ALL
      (SELECT e.id, e.tx, e.created_at FROM outbox.event e WHERE e.tx >= pg_snapshot_xmax(last.done) ORDER BY e.tx, e.id LIMIT 1000)
    ), uncut AS (
      SELECT f.id, f.created_at FROM fresh f
      WHERE (last.after_tx IS NULL OR (f.tx, f.id) > (last.after_tx, last.after_id) OR NOT pg_visible_in_snapshot(f.tx, last.target))
        AND f.created_at < now - uncut_after
        -- committed since before the threshold: either nobody cuts at all, or an older position saw it already
        AND (last.cut_at < now - uncut_after OR EXISTS (
          SELECT FROM outbox.position p WHERE p.cut_at < now - uncut_after AND pg_visible_in_snapshot(f.tx, p.target)))
    )
    SELECT 'critical', 'events not cut', 'the log',
      format('%s%s committed events have not been taken from the log; the oldest is %s of %s', count(*),
             CASE WHEN count(*) >= 1000 THEN ' or more' ELSE '' END, (array_agg(u.id ORDER BY u.created_at))[1], min(u.created_at)),
      'Is a dispatcher running and keeping up? SELECT * FROM outbox.position ORDER BY id DESC LIMIT 5; shows how far it is. Start another one.'
    FROM uncut u HAVING count(*) > 0;

  RETURN QUERY
    SELECT 'warning', 'overdue deliveries', format('endpoint %s (%s)', e.id, e.url),
      format('%s%s deliveries are overdue, the oldest since %s, though the endpoint is enabled and its circuit closed', n.many,
             CASE WHEN n.many >= 1000 THEN ' or more' ELSE '' END, n.oldest),
      CASE WHEN e.rate_limit IS NOT NULL
        THEN format('More comes for it than its rate limit of %s a second lets through. SELECT * FROM outbox.stuck; shows them. Raise rate_limit, or ask why so much comes.', e.rate_limit)
        ELSE 'Is it busier than max_in_flight allows? SELECT * FROM outbox.stuck; shows them. Raise max_in_flight, or start another dispatcher.' END
    FROM outbox.endpoint e LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id
    CROSS JOIN LATERAL (
      SELECT count(*) AS many, min(d.due_at) AS oldest FROM (
        SELECT d.due_at FROM outbox.delivery d WHERE d.endpoint_id = e.id AND d.ready AND d.dispatcher_id IS NULL
          AND d.due_at < now - overdue_after ORDER BY d.due_at LIMIT 1000) d) n
    WHERE e.state = 'enabled' AND coalesce(h.state, 'closed') = 'closed' AND n.many > 0;

  RETURN QUERY
    SELECT 'critical', 'sleeping key', format('endpoint %s, key %s', k.endpoint_id, k.key),
      format('deliveries of this key wait in order and none is ready; the first is event %s', k.first_event),
      format('UPDATE outbox.delivery SET ready = true WHERE event_id = %L AND endpoint_id = %s; wakes it. Somebody deleted its predecessor by hand.', k.first_event, k.endpoint_id)
    FROM (SELECT d.endpoint_id, d.key, (array_agg(d.event_id ORDER BY d.seq))[1] AS first_event
          FROM (SELECT * FROM outbox.delivery d WHERE NOT d.ready AND d.key IS NOT NULL LIMIT 10000) d
          GROUP BY d.endpoint_id, d.key) k
    WHERE NOT EXISTS (SELECT FROM outbox.delivery r WHERE r.endpoint_id = k.endpoint_id AND r.key = k.key AND r.ready)
      AND NOT EXISTS (SELECT FROM outbox.dead_letter l WHERE l.endpoint_id = k.endpoint_id AND l.key = k.key AND l.seq IS NOT NULL);

  RETURN QUERY
    SELECT 'warning', 'held keys', format('endpoint %s (%s)', e.id, e.url),
      format('%s dead letters hold their keys, since %s, and %s later events wait for them; the first is dead letter %s, event %s, key %s: %s%s',
        l.many, l.since, (SELECT count(*) FROM outbox.delivery d WHERE d.endpoint_id = e.id AND d.key IN (
          SELECT x.key FROM outbox.dead_letter x WHERE x.endpoint_id = e.id AND x.seq IS NOT NULL)),
        l.first, f.event_id, f.key, f.reason, coalesce(': ' || f.last_error, '')),
      format('SELECT outbox.redrive(%s); sends that one again, SELECT outbox.discard(%1$s); gives it up and lets the others pass. SELECT id, key, event_id, died_at, last_error FROM outbox.dead_letter WHERE endpoint_id = %s AND seq IS NOT NULL; shows all.', l.first, e.id)
    FROM (SELECT l.endpoint_id, count(*) AS many, min(l.died_at) AS since, (array_agg(l.id ORDER BY l.died_at, l.id))[1] AS first
          FROM outbox.dead_letter l WHERE l.seq IS NOT NULL GROUP BY l.endpoint_id) l
    JOIN outbox.dead_letter f ON f.id = l.first JOIN outbox.endpoint e ON e.id = l.endpoint_id;

  RETURN QUERY
    SELECT 'warning', 'rate limit without a bucket', format('endpoint %s (%s)', e.id, e.url),
      format('it has a rate limit, and the sequence outbox.rate_%s that counts it is gone; nothing is sent', e.id),
      format('UPDATE outbox.endpoint SET rate_limit = rate_limit WHERE id = %s; makes it anew.', e.id)
    FROM outbox.endpoint e WHERE e.rate_limit IS NOT NULL AND to_regclass('outbox.rate_' || e.id) IS NULL;

  RETURN QUERY
    SELECT 'warning', CASE WHEN h.state = 'closed' THEN 'failing endpoint' ELSE 'dead endpoint' END,
      format('endpoint %s (%s)', e.id, e.url),
      format('%s, circuit %s, %s waiting; last error: %s',
             CASE WHEN h.state <> 'closed' AND h.window_started_at IS NOT NULL
               THEN format('%s of %s deliveries failed in the %s before %s', h.window_failed, h.window_failed + h.window_succeeded,
                           date_trunc('second', h.opened_at - h.window_started_at), h.opened_at)
               ELSE format('%s failures in a row since %s', h.consecutive_failures, h.failing_since) END, h.state,
             (SELECT count(*) FROM outbox.delivery d WHERE d.endpoint_id = e.id), coalesce(h.last_error, 'none')),
      format('Tell its owner. It is probed by itself and nothing is lost. SELECT outbox.pause(%s); stops trying, SELECT outbox.resume(%1$s); tries at once.', e.id)
    FROM outbox.endpoint_health h JOIN outbox.endpoint e ON e.id = h.endpoint_id
    WHERE e.state = 'enabled' AND (h.state <> 'closed' OR (h.consecutive_failures > 0 AND h.failing_since < now - failing_after));

  RETURN QUERY
    SELECT 'warning', 'failing filter', format('endpoint %s (%s)', e.id, e.url),
      format('its filter failed for %s events since %s, the last time at %s: %s; they were not delivered to it', f.failures, f.since, f.failed_at, f.error),
      format('UPDATE outbox.endpoint SET filter = ''...'' WHERE id = %s; corrects it, SELECT outbox.replay(%1$s, %2$L); sends what it missed. If it is right as it is: DELETE FROM outbox.filter_failure WHERE endpoint_id = %1$s; begins to count anew.', e.id, f.since - interval '1 min')
    FROM outbox.filter_failure f JOIN outbox.endpoint e ON e.id = f.endpoint_id
    WHERE f.failed_at > now - greatest(findings.since, interval '1 day');

  RETURN QUERY
    SELECT 'warning', 'endpoint disabled by itself', format('endpoint %s (%s)', e.id, e.url),
      format('Martlet disabled it at %s because %s; events since then are not kept for it', e.disabled_at, e.disabled_because),
      format('Ask its owner. SELECT outbox.resume(%s); enables it, outbox.replay(%1$s, %L) sends what it missed; outbox.disable(%1$s) is the answer if it is gone for good.', e.id, e.disabled_at)
    FROM outbox.endpoint e WHERE e.disabled_because IS NOT NULL;

  RETURN QUERY
    SELECT CASE e.state WHEN 'disabled' THEN 'warning' ELSE 'info' END, e.state || ' endpoint with a backlog', format('endpoint %s (%s)', e.id, e.url),
      format('%s deliveries wait, the oldest since %s%s', n.many, n.oldest, coalesce('; last error: ' || h.last_error, '')),
      format('SELECT outbox.resume(%s); sends them.', e.id)
    FROM outbox.endpoint e LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id
    CROSS JOIN LATERAL (SELECT count(*) AS many, min(d.created_at) AS oldest FROM outbox.delivery d WHERE d.endpoint_id = e.id) n
    WHERE e.state <> 'enabled' AND n.many > 0;

  RETURN QUERY
    SELECT 'warning', 'dead letters', format('endpoint %s (%s)', l.endpoint_id, min(l.url)),
      format('%s deliveries were given up (%s), the last at %s: %s', count(*), l.reason, max(l.died_at), (array_agg(l.last_error ORDER BY l.died_at DESC))[1]),
      format('SELECT * FROM outbox.dead_letter WHERE endpoint_id = %s AND reason = %L; shows them, SELECT outbox.redrive_where(%1$s, %2$L); sends them again, outbox.discard(id) gives one up.', l.endpoint_id, l.reason)
    FROM outbox.dead_letter l WHERE l.reason <> 'discarded' AND l.died_at > now - greatest(since, interval '1 day')
    GROUP BY l.endpoint_id, l.reason;

  RETURN QUERY
    SELECT CASE WHEN d.day <= (now AT TIME ZONE 'UTC')::date THEN 'warning' ELSE 'info' END, 'missing partition', t.parent || '_' || to_char(d.day, 'YYYYMMDD'),
      'this partition should exist by now; until it does, its rows go to the DEFAULT partition (nothing is lost)',
      'SELECT * FROM outbox.maintain(); makes it, one table at a time: call it until it returns nothing. A long transaction may be in the way; that is named here too.'
    FROM unnest('{event,attempt_packed,attempt_single}'::text[]) t(parent),
         generate_series((now AT TIME ZONE 'UTC')::date, (now AT TIME ZONE 'UTC')::date + 1, interval '1 day') d(day)
    WHERE NOT EXISTS (SELECT FROM outbox.partitions() x WHERE x.parent = t.parent AND x.day = d.day::date);

  RETURN QUERY
    SELECT 'warning', 'long transaction', format('session %s (%s@%s, %s)', a.pid, a.usename, a.datname, coalesce(nullif(a.application_name, ''), 'no application_name')),
      format('open since %s, state %s; it keeps dead rows of the whole cluster from being cleaned up%s', a.xact_start, a.state,
             CASE WHEN a.backend_xid IS NOT NULL THEN ', and its own events are not delivered before it commits' ELSE '' END),
      format('Ask its owner. SELECT pg_terminate_backend(%s); ends it and rolls it back.', a.pid)
    FROM pg_stat_activity a
    WHERE a.xact_start < now - transaction_after AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
      AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL);
  RETURN QUERY
    SELECT 'warning', 'long transaction', format('prepared transaction %L', x.gid),
      format('prepared at %s by %s and neither committed nor rolled back; its events are not delivered before it is', x.prepared, x.owner),
      format('COMMIT PREPARED %L; or ROLLBACK PREPARED %1$L;', x.gid)
    FROM pg_prepared_xacts x WHERE x.prepared < now - transaction_after AND x.database = current_database();
  IF NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN
    RETURN QUERY SELECT 'unchecked', 'long transaction', 'pg_stat_activity',
      format('the role %s may not see other sessions'' transactions', current_user), format('GRANT pg_read_all_stats TO %I;', current_user);
  END IF;

END $$;

-- The same of conservation, for the events of a period. `figures`: the counts in the words, for programs.
CREATE FUNCTION outbox.conservation_findings(since timestamptz, until timestamptz, max_events int)
RETURNS TABLE (severity text, finding text, subject text, detail text, remedy text, figures jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  now CONSTANT timestamptz := clock_timestamp();
  c record;
  elsewhere record;
BEGIN
  PERFORM outbox.stamp_subscriptions();
  SELECT * INTO c FROM outbox.conservation(conservation_findings.since, conservation_findings.until, max_events);
  RETURN QUERY
    SELECT CASE WHEN c.missing > 0 THEN 'critical' ELSE 'ok' END, 'conservation',
      format('%s events created %s', c.events, CASE WHEN c.events > 0
        THEN format('from %s to %s', date_trunc('second', c.oldest), date_trunc('second', c.newest))
        ELSE format('since %s', date_trunc('second', greatest(conservation_findings.since, c.begins))) END),
      concat_ws('; ', format('%s deliveries = %s delivered + %s waiting + %s in flight + %s dead', c.pairs, c.delivered, c.waiting, c.in_flight, c.dead)
          || CASE WHEN c.missing > 0 THEN format(' + %s MISSING', c.missing) ELSE '; 0 missing' END,
        CASE WHEN c.skipped > 0 THEN format('besides, %s were passed over because filters took too long', c.skipped) END,
        CASE WHEN c.as_of IS NOT NULL THEN format('what is waiting or in flight was last looked at %s or later', date_trunc('second', c.as_of)) END,
        CASE WHEN NOT c.complete THEN 'more was cut than the proof has come to, and is not counted here' END,
        CASE WHEN c.begins > conservation_findings.since THEN format('the proof begins %s', date_trunc('second', c.begins)) END),
      CASE WHEN c.skipped > 0 THEN 'SELECT * FROM outbox.skipped; names what was passed over, SELECT outbox.resend(event, endpoint) sends one all the same.' END,
      (to_jsonb(c) - 'missing_pairs') || jsonb_build_object('since', conservation_findings.since, 'until', conservation_findings.until);
  RETURN QUERY
    SELECT 'critical', 'missing deliveries', 'event ' || split_part(m, '/', 1) || ', endpoint ' || split_part(m, '/', 2),
      'the event was cut for this endpoint, and is neither delivered, waiting, in flight nor dead'
        || CASE WHEN e.id IS NULL THEN '; nor is the event in the log any more: it cannot be sent' ELSE '' END,
      'SELECT * FROM outbox.repair(); sends all that are missing (martlet reconcile --repair). Find out who deleted them.', NULL::jsonb
    FROM unnest(c.missing_pairs) m LEFT JOIN outbox.event e ON e.id = split_part(m, '/', 1)::uuid;
  IF c.missing > 100 THEN
    RETURN QUERY SELECT 'critical', 'missing deliveries', (c.missing - 100) || ' more', 'the first hundred are named above',
      'SELECT * FROM outbox.repair(); sends them, too.', NULL::jsonb;
  END IF;
  SELECT count(*) AS missing, min(p.oldest) AS oldest, max(p.newest) AS newest INTO elsewhere
  FROM outbox.proof p CROSS JOIN LATERAL outbox.pair_states(p.open_events, p.open_endpoints, p.proved_at - interval '1 hour') s
  WHERE p.due_at IS NOT NULL AND p.missing > 0 AND s.state = 'missing'
    AND NOT (p.newest >= conservation_findings.since AND p.oldest < conservation_findings.until);
  IF elsewhere.missing > 0 THEN
    RETURN QUERY SELECT 'critical', 'missing deliveries', elsewhere.missing || ' of other times',
      format('of events created from %s to %s', date_trunc('second', elsewhere.oldest), date_trunc('second', elsewhere.newest)),
      format('SELECT unnest(missing_pairs) FROM outbox.conservation(%L, %L); names them (martlet reconcile --since %1$L), SELECT * FROM outbox.repair(); sends them.',
        elsewhere.oldest, elsewhere.newest + interval '1 s'), NULL::jsonb;
  END IF;
  RETURN QUERY
    SELECT 'warning', 'proof is behind', 'the ledger',
      format('events cut since %s are not in it yet; days of the log and of history are kept until they are', date_trunc('second', c.unproved_since)),
      'Dispatchers go on with it every minute; look at their logs. By hand, until it returns nothing: SELECT * FROM outbox.prove();', NULL::jsonb
    WHERE c.unproved_since < now - interval '1 hour';
END $$;

-- The reconciler's findings, worst first. The period of which conservation is proved begins `since` ago, and ends `until` ago.
CREATE FUNCTION outbox.reconcile(
  since interval DEFAULT '1 hour', max_events int DEFAULT 100000, uncut_after interval DEFAULT '1 min',
  overdue_after interval DEFAULT '5 min', failing_after interval DEFAULT '5 min', transaction_after interval DEFAULT '10 min',
  until interval DEFAULT '0 s'
) RETURNS TABLE (severity text, finding text, subject text, detail text, remedy text, figures jsonb)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  WITH period AS (
    SELECT CASE WHEN since > '1000 years' THEN '-infinity' ELSE clock_timestamp() - since END AS begins,
           CASE WHEN until > '0 s' THEN clock_timestamp() - until ELSE 'infinity' END AS ends
  ), found AS (
    SELECT 1 AS part, f.* FROM period p, outbox.conservation_findings(p.begins, p.ends, max_events)
      WITH ORDINALITY f(severity, finding, subject, detail, remedy, figures, place)
    UNION ALL
    SELECT 2, f.severity, f.finding, f.subject, f.detail, f.remedy, NULL, f.place
    FROM outbox.findings(since, uncut_after, overdue_after, failing_after, transaction_after)
      WITH ORDINALITY f(severity, finding, subject, detail, remedy, place)
  )
  SELECT f.severity, f.finding, f.subject, f.detail, f.remedy, f.figures FROM found f
  ORDER BY array_position('{critical,warning,unchecked,info,ok}', f.severity), f.part, f.place
$$;
COMMIT;
