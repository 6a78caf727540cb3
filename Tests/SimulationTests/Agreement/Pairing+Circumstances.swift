import Postgres

/// What goes on around dispatchers: operators, crashes, time, and a look at what waits.
extension Pairing {
  func addEndpoint() throws {
    var row = EndpointRow(id: model.tables.endpoints.count + 1)
    row.ordered = chance.oneIn(2)
    row.types = chance.oneIn(3) ? [0] : [0, 1]
    row.failureThreshold = chance.pick([1, 3, 10])
    model.addEndpoint(row)
    _ = try connection.query(
      """
      SELECT outbox.add_endpoint('https://example.com/hook', event_types => $1::text[], ordered => $2, \
      failure_threshold => $3, failure_rate => NULL)
      """,
      [.textArray(row.types.map { "t\($0)" }), .bool(row.ordered), .int4(Int32(row.failureThreshold))]
    )
  }

  func setState() throws -> String {
    let id = 1 + chance.below(model.tables.endpoints.count)
    let (call, state): (String, EndpointRow.State) = chance.pick([
      ("resume", .enabled), ("resume", .enabled), ("pause", .paused), ("disable", .disabled),
    ])
    try connection.execute("SELECT outbox.\(call)(\(id))")
    model.setState(id, state)
    return "\(call)(\(id))"
  }

  func loseWitness() throws -> String {
    try connection.execute("TRUNCATE outbox.witness")
    model.tables.witness = [:]
    return "lose the witness"
  }

  func waiting() throws -> String {
    let real = try store.waiting().map { "\($0.endpoint) \($0.dueIn == .zero)" }
    try agree("waiting", real, model.waiting().map { "\($0.endpoint) \($0.dueIn == 0)" })
    return "waiting"
  }

  /// Time flies: what was to wait an hour, and probes of open circuits, are due.
  func makeDue() throws -> String {
    try connection.execute(
      """
      UPDATE outbox.delivery SET due_at = now() - interval '1 s' WHERE due_at > now();
      UPDATE outbox.endpoint_health SET probe_at = now() - interval '1 s' WHERE probe_at > now()
      """
    )
    let now = model.clock
    for pair in model.tables.deliveries.keys where model.tables.deliveries[pair]!.due > now {
      model.tables.deliveries[pair]!.due = 0
    }
    for id in model.tables.health.keys where (model.tables.health[id]!.probeAt ?? 0) > now {
      model.tables.health[id]!.probeAt = 0
    }
    return "make due"
  }
}
