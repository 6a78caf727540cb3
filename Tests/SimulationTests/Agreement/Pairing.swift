import Foundation
import OutboxStore
import Postgres

/// The model and a real database side by side: each call is made on both, and after each both must show the same.
final class Pairing {
  let model = ModelDatabase()
  private let connection: Connection
  private let store: OutboxStore
  private let publishers: [Connection]
  private let chance: Chance
  private var uuids: [Int: UUID] = [:]
  private var batches: [Int64: Int] = [:]
  /// Open transactions of publishers, by session.
  private var open: [Int: (tx: Int, epoch: Int, events: [EventRow])] = [:]
  /// What each dispatcher was handed and has not recorded yet.
  private var held: [Int: [Holding]] = [:]
  private var lastRecord: (dispatcher: Int, outcomes: [Holding.Told], finished: [Int64])?
  private var dispatchers: [Int] = []
  private var resyncs: [Int: Int] = [:]

  struct Holding {
    var pair: Pair
    var batch: Int64?
    var attempts: Int
    typealias Told = (outcome: Outcome, pair: Pair)
  }

  init(_ configuration: ConnectionConfiguration, seed: UInt64) throws {
    connection = try Connection(configuration)
    store = OutboxStore(connection)
    publishers = try (0..<3).map { _ in try Connection(configuration) }
    chance = Chance(seed)
    try connection.execute(Self.reset)
  }

  private static let reset = """
    TRUNCATE outbox.event, outbox.endpoint, outbox.endpoint_secret, outbox.subscription, outbox.past_subscription,
      outbox.position, outbox.dispatcher, outbox.witness, outbox.batch, outbox.delivery, outbox.attempt_single, outbox.attempt_packed,
      outbox.dead_letter, outbox.endpoint_health RESTART IDENTITY CASCADE;
    INSERT INTO outbox.position (done, target, events) VALUES (pg_current_snapshot(), pg_current_snapshot(), 0)
    """

  /// Makes so many random calls, and says how many. Throws at the first disagreement.
  func run(_ count: Int) throws -> Int {
    for _ in 0..<chance.between(1, 3) { try addEndpoint() }
    for _ in 0..<chance.between(1, 2) { _ = try register() }
    for _ in 0..<count {
      let name = try step()
      try compare(name)
    }
    return count
  }

  private func step() throws -> String {
    let dispatcher = chance.oneIn(30) ? 99 : chance.pick(dispatchers)
    switch chance.below(46) {
    case 0...4: return try publish()
    case 5...8, 40...: return try publishInTransaction()
    case 9...16: return try cut(dispatcher)
    case 17...23: return try claim(dispatcher)
    case 24...30: return try record(dispatcher)
    case 31, 32: return try resync(dispatcher)
    case 33: return try expireOrRenew(dispatcher)
    case 34: return try recover(dispatcher)
    case 35: return try chance.oneIn(2) ? register() : release(dispatcher)
    case 36: return try setState()
    case 37: return try loseWitness()
    case 38: return try waiting()
    default: return try makeDue()
    }
  }

  // MARK: - Calls

  private func addEndpoint() throws {
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

  private func publish() throws -> String {
    for _ in 0..<chance.between(1, 4) {
      let event = newEvent(model.begin())
      try insert(event, connection)
      _ = model.end(event.tx, of: model.epoch, [event])
    }
    return "publish"
  }

  private func publishInTransaction() throws -> String {
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

  private func register() throws -> String {
    let real = try store.register(name: "a", host: "b", pid: 1, version: "c", lease: .seconds(3600))
    let id = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.register(lease: 3_600_000_000, transaction)
    }
    try agree("register", Int(real), id)
    dispatchers.append(id)
    resyncs[id] = 0
    return "register"
  }

  /// The number that a step carries: the right one, none, or that of a time gone by.
  private func number(_ dispatcher: Int) -> Int? {
    let number = resyncs[dispatcher] ?? 0
    return chance.oneIn(3) ? nil : chance.oneIn(20) ? number - 1 : number
  }

  private func cut(_ dispatcher: Int) throws -> String {
    let (events, direct, perEndpoint) = (
      chance.pick([1, 2, 5, 500]), chance.pick([0, 2, 100]), chance.pick([1, 3, 100])
    )
    let busy = chance.oneIn(3) ? [1 + chance.below(model.tables.endpoints.count)] : []
    let slots = busy.map { _ in chance.below(3) }
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.cut(
        dispatcher: Int64(dispatcher),
        events: events,
        direct: direct,
        perEndpoint: perEndpoint,
        bytes: 1 << 30,
        busy: busy.map { Int64($0) },
        slots: slots,
        resyncs: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.cut(
          dispatcher: dispatcher,
          events: events,
          direct: direct,
          perEndpoint: perEndpoint,
          busy: busy,
          slots: slots,
          resyncs: number,
          transaction
        )
      }
    }
    let what = "cut(\(dispatcher), \(events), \(direct), \(perEndpoint), \(busy), \(slots), \(number ?? -1))"
    try agree(what, real.map(describe), expected.map(describe))
    if case .success(let cut?) = real, case .success(let result?) = expected, let batch = cut.batch {
      batches[batch] = result.batch!
      for row in result.direct {
        for endpoint in row.endpoints {
          held[dispatcher, default: []].append(Holding(pair: Pair(row.event.id, endpoint), batch: batch, attempts: 0))
        }
      }
    }
    return what
  }

  private func describe(_ cut: Cut?) -> String {
    guard let cut else { return "nothing" }
    let direct = cut.direct.map { "\(event($0.event.id))→\($0.endpoints)" }
    return "\(cut.batch != nil) \(cut.events) \(cut.parked) \(cut.more) \(cut.claimable.sorted()) \(direct)"
  }

  private func describe(_ cut: ModelDatabase.CutResult?) -> String {
    guard let cut else { return "nothing" }
    let direct = cut.direct.map { "\($0.event.id)→\($0.endpoints)" }
    return "\(cut.batch != nil) \(cut.events) \(cut.parked) \(cut.more) \(cut.claimable.sorted()) \(direct)"
  }

  private func claim(_ dispatcher: Int) throws -> String {
    let endpoints = model.tables.endpoints.map(\.id).filter { _ in !chance.oneIn(4) }
    let slots = endpoints.map { _ in chance.pick([1, 2, 100]) }
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.claim(
        dispatcher: Int64(dispatcher),
        endpoints: endpoints.map { Int64($0) },
        slots: slots,
        floors: endpoints.map { _ in nil },
        resyncs: number
      )
    }
    var taken: [Pair] = []
    if case .success(let claimed) = real {
      taken = claimed.deliveries.map { Pair(event($0.event.id), Int($0.endpoint)) }
    }
    // Which of several that came due in the same microsecond is nobody's business: the model takes what PostgreSQL took,
    // as far as it could have taken it.
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.claim(
          dispatcher: dispatcher,
          endpoints: endpoints,
          slots: slots,
          floors: endpoints.map { _ in nil },
          resyncs: number,
          transaction,
          choose: { due, slots in
            Array((due.filter { taken.contains($0.pair) } + due.filter { !taken.contains($0.pair) }).prefix(slots))
          }
        )
      }
    }
    let what = "claim(\(dispatcher), \(endpoints), \(slots), \(number ?? -1))"
    try agree(
      what,
      real.map { $0.deliveries.map { "\(Pair(event($0.event.id), Int($0.endpoint))) \($0.attempts)" }.sorted() },
      expected.map { $0.map { "\($0.pair) \($0.attempts)" }.sorted() }
    )
    if case .success(let claimed) = expected {
      held[dispatcher, default: []] += claimed.map { Holding(pair: $0.pair, batch: nil, attempts: $0.attempts) }
    }
    return what
  }

  private func record(_ dispatcher: Int) throws -> String {
    var (outcomes, finished): ([Holding.Told], [Int64]) = ([], [])
    var again = false
    if let last = lastRecord, last.dispatcher == dispatcher, chance.oneIn(4) {
      // As after a lost reply.
      (outcomes, finished, again) = (last.outcomes, last.finished, !chance.oneIn(3))
    } else {
      var mine = held[dispatcher] ?? []
      for _ in 0..<min(mine.count, chance.between(1, 5)) {
        let one = mine.remove(at: chance.below(mine.count))
        outcomes.append((told(one), one.pair))
        if let batch = one.batch, !mine.contains(where: { $0.batch == batch }) { finished.append(batch) }
      }
      held[dispatcher] = mine
      again = chance.oneIn(8)
    }
    guard !outcomes.isEmpty else { return "record nothing" }
    lastRecord = (dispatcher, outcomes, finished)
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.record(
        dispatcher: Int64(dispatcher),
        outcomes.map(\.outcome),
        finishedBatches: finished,
        again: again,
        resyncs: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.record(
          dispatcher: dispatcher,
          outcomes.map { outcome, _ in
            var outcome = outcome
            outcome.batch = outcome.batch.map { Int64(batches[$0]!) }
            return outcome
          },
          pairs: outcomes.map(\.pair),
          finished: finished.map { batches[$0]! },
          again: again,
          resyncs: number,
          transaction
        )
      }
    }
    let told = outcomes.map { outcome, pair in
      "\(pair) \(outcome.kind) \(outcome.attempt) \(outcome.batch != nil) \(outcome.reason ?? "")"
    }
    let what = "record(\(dispatcher), \(told), \(again), \(number ?? -1))"
    try agree(
      what,
      real.map { $0.map { "\($0.endpoint) \($0.circuit) \($0.state)" }.sorted() },
      expected.map { $0.map { "\($0.endpoint) \($0.circuit.rawValue) \($0.state.rawValue)" }.sorted() }
    )
    return what
  }

  private func told(_ one: Holding) -> Outcome {
    let key = DeliveryKey(event: uuids[one.pair.event]!, endpoint: Int64(one.pair.endpoint))
    let kind: Outcome.Kind = chance.pick([.delivered, .delivered, .failed, .failed, .returned])
    var told = Outcome(
      delivery: key,
      batch: one.batch,
      kind: kind,
      attempt: one.attempts + (kind == .returned ? 0 : 1)
    )
    told.duration = .milliseconds(chance.below(5))
    switch kind {
    case .delivered: told.status = 200
    case .returned: told.retryIn = .zero
    case .failed:
      (told.status, told.error) = (500, "it failed")
      if chance.oneIn(5) {
        told.reason = chance.pick(["exhausted", "expired", "gone"])
      } else {
        told.retryIn = chance.oneIn(2) ? .zero : .seconds(3600)
      }
    }
    return told
  }

  private func resync(_ dispatcher: Int) throws -> String {
    let kept = (held[dispatcher] ?? []).filter { _ in !chance.oneIn(3) }
    let saysHow = !chance.oneIn(3)
    var told = ModelDatabase.Kept(isAnyHow: !saysHow)
    for one in kept { told.batches[one.pair, default: []].append(one.batch.map { batches[$0]! }) }
    var number: Int?
    if !chance.oneIn(3) { number = (resyncs[dispatcher] ?? 0) + (chance.oneIn(6) ? -1 : 1) }
    let real = outcome { () throws(PostgresError) in
      try store.resync(
        dispatcher: Int64(dispatcher),
        held: kept.map { DeliveryKey(event: uuids[$0.pair.event]!, endpoint: Int64($0.pair.endpoint)) },
        batches: saysHow ? kept.map(\.batch) : nil,
        number: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.resync(dispatcher: dispatcher, kept: told, number: number, transaction)
      }
    }
    let what = "resync(\(dispatcher), \(kept.map(\.pair)), \(number ?? -1))"
    try agree(what, real.map { Int($0) }, expected)
    if case .success = expected {
      held[dispatcher] = kept
      resyncs[dispatcher] = model.tables.witness[dispatcher] ?? 0
    }
    return what
  }

  private func expireOrRenew(_ dispatcher: Int) throws -> String {
    if chance.oneIn(2) {
      try connection.execute(
        "UPDATE outbox.dispatcher SET expires_at = now() - interval '1 s' WHERE id = \(dispatcher)"
      )
      if let index = model.tables.leases.firstIndex(where: { $0.id == dispatcher }) {
        model.tables.leases[index].expires = 0
      }
      return "expire \(dispatcher)"
    }
    let real = try store.heartbeat(dispatcher: Int64(dispatcher), lease: .seconds(3600))
    let expected = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.heartbeat(dispatcher: dispatcher, lease: 3_600_000_000, transaction)
    }
    try agree("heartbeat", real, expected)
    return "heartbeat \(dispatcher)"
  }

  private func recover(_ dispatcher: Int) throws -> String {
    let caller = chance.oneIn(3) ? nil : dispatcher
    let real = outcome { () throws(PostgresError) in try store.recover(caller: caller.map { Int64($0) }, settle: .zero)
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
        try model.recover(caller: caller, settle: -1000, transaction)
      }
    }
    try agree(
      "recover",
      real.map { $0.map { "\($0.dispatcher) \($0.deliveries)" } },
      expected.map { $0.map { "\($0.id) \($0.deliveries)" } }
    )
    return "recover(\(caller ?? -1))"
  }

  private func release(_ dispatcher: Int) throws -> String {
    let real = try store.release(dispatcher: Int64(dispatcher))
    let expected = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.release(dispatcher: dispatcher, transaction)
    }
    try agree("release", Int(real), expected)
    return "release(\(dispatcher))"
  }

  private func setState() throws -> String {
    let id = 1 + chance.below(model.tables.endpoints.count)
    let (call, state): (String, EndpointRow.State) = chance.pick([
      ("resume", .enabled), ("resume", .enabled), ("pause", .paused), ("disable", .disabled),
    ])
    try connection.execute("SELECT outbox.\(call)(\(id))")
    model.setState(id, state)
    return "\(call)(\(id))"
  }

  private func loseWitness() throws -> String {
    try connection.execute("TRUNCATE outbox.witness")
    model.tables.witness = [:]
    return "lose the witness"
  }

  private func waiting() throws -> String {
    let real = try store.waiting().map { "\($0.endpoint) \($0.dueIn == .zero)" }
    try agree("waiting", real, model.waiting().map { "\($0.endpoint) \($0.dueIn == 0)" })
    return "waiting"
  }

  /// Time flies: what was to wait an hour, and probes of open circuits, are due.
  private func makeDue() throws -> String {
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

  // MARK: - Comparing

  private func event(_ id: UUID) -> Int { uuids.first { $0.value == id }?.key ?? -1 }

  private func outcome<Value>(_ body: () throws(PostgresError) -> Value) -> Result<Value, PostgresError> {
    do { return .success(try body()) } catch { return .failure(error) }
  }

  private func agree<Value: Equatable>(_ what: String, _ real: Value, _ expected: Value) throws {
    if real != expected { throw Disagreement(what: what, postgres: "\(real)", model: "\(expected)") }
  }

  private func agree<Value: Equatable>(
    _ what: String,
    _ real: Result<Value, PostgresError>,
    _ expected: Result<Value, PostgresError>
  ) throws {
    switch (real, expected) {
    case (.success(let real), .success(let expected)): try agree(what, real, expected)
    case (.failure(let real), .failure(let expected)): try agree(what, real.sqlState, expected.sqlState)
    case (.failure(let error), .success(let expected)):
      throw Disagreement(what: what, postgres: "\(error)", model: "\(expected)")
    case (.success(let real), .failure(let error)):
      throw Disagreement(what: what, postgres: "\(real)", model: error.sqlState)
    }
  }

  private func compare(_ after: String) throws {
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

struct Disagreement: Error, CustomStringConvertible {
  var what: String
  var postgres: String
  var model: String
  var description: String { "\(what)\n  PostgreSQL: \(postgres)\n  the model:  \(model)" }
}
