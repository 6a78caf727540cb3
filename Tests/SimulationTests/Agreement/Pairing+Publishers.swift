import Postgres

/// Publishers' calls: events one by one, and in transactions that overlap.
extension Pairing {
  private func insert(_ event: EventRow, _ connection: Connection) throws {
    let rows = try connection.query(
      """
      INSERT INTO outbox.event (type, key, payload, not_before) \
      VALUES ($1, $2, jsonb_build_object('n', $3::int), CASE WHEN $4 THEN now() + interval '1 h' END) RETURNING id
      """,
      [
        .text("t\(event.type)"), .text(event.key.map { "k\($0)" }), .int4(Int32(event.id)),
        .bool(event.notBefore != nil),
      ]
    )
    uuids[event.id] = try rows.uuid(0, 0)
  }

  private func newEvent(_ tx: Int) -> EventRow {
    var event = EventRow(
      id: model.newEvent(),
      tx: tx,
      type: chance.below(2),
      key: chance.oneIn(3) ? nil : chance.below(2)
    )
    if chance.oneIn(10) { event.notBefore = .max / 2 }
    return event
  }

  func publish() throws -> String {
    for _ in 0..<chance.between(1, 4) {
      let event = newEvent(model.begin())
      try insert(event, connection)
      _ = model.end(event.tx, of: model.epoch, [event])
    }
    return "publish"
  }

  func publishInTransaction() throws -> String {
    let session = chance.below(publishers.count)
    if let (tx, epoch, events) = open[session], chance.oneIn(2) {
      let commits = !chance.oneIn(4)
      try publishers[session].execute(commits ? "COMMIT" : "ROLLBACK")
      _ = model.end(tx, of: epoch, commits ? events : nil)
      open[session] = nil
      return commits ? "commit" : "roll back"
    }
    if open[session] == nil {
      try publishers[session].execute("BEGIN")
      open[session] = (model.begin(), model.epoch, [])
      if chance.oneIn(3) {  // has its place in the log, and its events later
        try publishers[session].execute("SELECT pg_current_xact_id()")
        return "begin"
      }
    }
    for _ in 0..<chance.between(1, 3) {
      let event = newEvent(open[session]!.tx)
      try insert(event, publishers[session])
      open[session]!.events.append(event)
    }
    return "insert"
  }
}
