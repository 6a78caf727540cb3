import Postgres

/// What is in the tables on either side, in the same words.
extension Pairing {
  func compare(_ after: String) throws {
    let rows = try connection.queryText(Self.state).rows.map { $0[0] ?? "" }
    var real: [String] = []
    for row in rows {
      // Batches have ids of their own on either side.
      if row.hasPrefix("batch "), let id = Int64(row.split(separator: " ")[1]) {
        real.append(row.replacing("batch \(id) ", with: "batch \(batches[id] ?? -1) "))
      } else if row.hasPrefix("attempt "), let id = Int64(row.split(separator: " ").last!) {
        real.append(row.replacing(" in \(id)", with: " in \(batches[id] ?? -1)"))
      } else {
        real.append(row)
      }
    }
    let expected = modelState()
    guard real.sorted() == expected.sorted() else {
      let (real, expected) = (Set(real), Set(expected))
      throw Disagreement(
        what: "tables after \(after)",
        postgres: real.subtracting(expected).sorted().joined(separator: "\n    "),
        model: expected.subtracting(real).sorted().joined(separator: "\n    ")
      )
    }
  }

  private static let state = """
    WITH n AS MATERIALIZED (SELECT id, (payload ->> 'n')::int AS n FROM outbox.event)
    SELECT format('delivery %s %s key %s ready %s attempts %s holder %s due %s place %s', n.n, d.endpoint_id, d.key, d.ready,
      d.attempts, d.dispatcher_id, d.due_at <= clock_timestamp(),
      CASE WHEN d.key IS NOT NULL THEN row_number() OVER (PARTITION BY d.endpoint_id, d.key ORDER BY d.seq) END)
    FROM outbox.delivery d JOIN n ON n.id = d.event_id
    UNION ALL SELECT format('batch %s of %s: %s', b.id, b.dispatcher_id, (
      SELECT string_agg(n.n || '/' || u.endpoint, ' ' ORDER BY u.ord)
      FROM unnest(b.event_ids, b.endpoint_ids) WITH ORDINALITY u(event, endpoint, ord) JOIN n ON n.id = u.event))
    FROM outbox.batch b
    UNION ALL SELECT format('attempt %s %s by %s: %s %s in %s', n.n, a.endpoint_id, a.dispatcher_id, a.outcome, a.attempt, a.batch_id)
    FROM outbox.attempt a JOIN n ON n.id = a.event_id
    UNION ALL SELECT format('dead %s %s %s %s', n.n, l.endpoint_id, l.attempts, l.reason)
    FROM outbox.dead_letter l JOIN n ON n.id = l.event_id
    UNION ALL SELECT format('health %s %s %s opened %s probe %s', h.endpoint_id, h.state, h.consecutive_failures,
      h.opened_at IS NOT NULL, h.probe_at <= clock_timestamp()) FROM outbox.endpoint_health h
    UNION ALL SELECT format('lease %s %s witness %s', d.id, d.expires_at > clock_timestamp(), w.resyncs)
    FROM outbox.dispatcher d LEFT JOIN outbox.witness w ON w.dispatcher_id = d.id
    UNION ALL SELECT format('endpoint %s %s', e.id, e.state) FROM outbox.endpoint e
    UNION ALL SELECT format('cut %s', (e.payload ->> 'n')::int) FROM outbox.event e,
      (SELECT * FROM outbox.position ORDER BY id DESC LIMIT 1) p
    WHERE pg_visible_in_snapshot(e.tx, p.done)
      OR (pg_visible_in_snapshot(e.tx, p.target) AND (e.tx, e.id) <= (p.after_tx, p.after_id))
    """

  private func modelState() -> [String] {
    let (tables, now) = (model.tables, model.clock)
    func bool(_ value: Bool) -> String { value ? "t" : "f" }
    func text(_ value: Int?) -> String { value.map(String.init) ?? "" }
    var lines: [String] = []
    for row in tables.deliveries.values {
      let place = row.key.map { key in
        tables.deliveries.values.count { $0.pair.endpoint == row.pair.endpoint && $0.key == key && $0.seq <= row.seq }
      }
      lines.append(
        """
        delivery \(row.pair.event) \(row.pair.endpoint) key \(row.key.map { "k\($0)" } ?? "") ready \(bool(row.ready)) \
        attempts \(row.attempts) holder \(text(row.dispatcher)) due \(bool(row.due <= now)) place \(text(place))
        """
      )
    }
    for batch in tables.batches {
      let pairs = batch.pairs.map { "\($0.event)/\($0.endpoint)" }.joined(separator: " ")
      lines.append("batch \(batch.id) of \(batch.dispatcher): \(pairs)")
    }
    for (pair, attempts) in tables.attempts {
      for one in attempts {
        lines.append(
          "attempt \(pair.event) \(pair.endpoint) by \(one.dispatcher): \(one.kind) \(one.number) in \(text(one.batch))"
        )
      }
    }
    for (pair, letter) in tables.dead {
      lines.append("dead \(pair.event) \(pair.endpoint) \(letter.attempts) \(letter.reason)")
    }
    for (id, health) in tables.health {
      lines.append(
        """
        health \(id) \(health.state.rawValue) \(health.failures) opened \(bool(health.openedAt != nil)) \
        probe \(health.probeAt.map { bool($0 <= now) } ?? "")
        """
      )
    }
    for lease in tables.leases {
      lines.append("lease \(lease.id) \(bool(lease.expires > now)) witness \(text(tables.witness[lease.id]))")
    }
    for endpoint in tables.endpoints { lines.append("endpoint \(endpoint.id) \(endpoint.state.rawValue)") }
    for event in tables.events where tables.position.isPast(event) { lines.append("cut \(event.id)") }
    return lines
  }
}
