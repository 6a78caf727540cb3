import OutboxStore

/// Watches a run and holds it against the invariants of the design: what publishers saw committed, what is in the tables,
/// what receivers saw arrive. It knows what went wrong in the world, and what that excuses.
final class Checker {
  private let scheduler: Scheduler
  private let database: ModelDatabase
  private let keepsTrace: Bool
  private(set) var violation: String?
  private(set) var lines: [String] = []
  /// Over all that happened: two runs with the same digest were the same.
  private(set) var digest: UInt64 = 0xcbf2_9ce4_8422_2325
  /// Transactions of publishers not ended yet.
  var publishing = 0
  var isOver = false
  /// The clock of the database or of a host was wrong: who believes to have a lease may be mistaken.
  var clockJumped = false

  private struct Published {
    var row: EventRow
    var inserted: Int
    var committed: Int?
  }
  private var events: [Int: Published] = [:]
  /// Pairs that were cut, by the position of the moment; which endpoints were subscribed is decided at the cut.
  private var expected: Set<Pair> = []
  private var cutEvents: Set<Int> = []
  /// Successes that dispatchers know of, and how often one may have been forgotten again.
  private var acknowledged: [Pair: Int] = [:]
  private var excuses: [Pair: Int] = [:]
  /// Successes at the receiver.
  private var received: [Pair: Int] = [:]
  /// Sent at least once, by endpoint and key: pairs in order.
  private var sentInOrder: [Int: [Pair]] = [:]
  private(set) var sends = 0
  private(set) var commits = 0
  private(set) var duplicates = 0

  init(_ scheduler: Scheduler, _ database: ModelDatabase, keepsTrace: Bool) {
    self.scheduler = scheduler
    self.database = database
    self.keepsTrace = keepsTrace
  }

  func fail(_ what: @autoclosure () -> String) {
    guard violation == nil, !isOver else { return }
    violation = what()
    trace("VIOLATION: \(violation!)")
  }

  func trace(_ line: @autoclosure () -> String) {
    if keepsTrace { lines.append("\(Double(scheduler.now) / 1e6) \(line())") }
  }

  private func mix(_ number: Int) { digest = (digest ^ UInt64(bitPattern: Int64(number))) &* 0x100_0000_01b3 }

  // MARK: - Publishers

  func isAboutToCommit(_ rows: [EventRow], insertedAt inserted: Int) {
    for row in rows { events[row.id] = Published(row: row, inserted: inserted, committed: nil) }
  }

  // MARK: - The database

  func committed(_ commit: ModelDatabase.Commit) {
    guard !isOver else { return }
    commits += 1
    mix(scheduler.now)
    switch commit {
    case .published(let rows):
      trace("committed tx \(rows[0].tx): \(rows.map { "\($0.id)\($0.key.map { "k\($0)" } ?? "")" })")
      for row in rows { events[row.id]!.committed = scheduler.now }
    case .cut(let cut):
      if !cut.direct.isEmpty || !cut.parked.isEmpty {
        trace("\(cut.dispatcher) cuts: batch \(cut.batch ?? 0) \(cut.direct), parked \(cut.parked)")
      }
      noteCut(cut)
    case .claimed(let dispatcher, let pairs):
      trace("\(dispatcher) claims \(pairs)")
      requireLease(dispatcher)
    case .recorded(let dispatcher, let outcomes):
      trace(
        "\(dispatcher) records \(outcomes.map { "\(World.pair($0.delivery)) \($0.kind) \($0.attempt) \($0.reason ?? "")" })"
      )
      requireLease(dispatcher)
      for outcome in outcomes {
        let pair = World.pair(outcome.delivery)
        mix(pair.code)
        if outcome.attempt > database.tables.endpoints[pair.endpoint - 1].maxAttempts {
          fail("\(pair) was tried more often than its endpoint allows")
        }
      }
    case .gaveBack(let dispatcher, let pairs, let taken):
      trace("\(dispatcher) \(taken ? "lost" : "gave back") \(pairs)")
      if taken {
        for pair in pairs { excuses[pair, default: 0] += 1 }
        if database.tables.batches.contains(where: { $0.dispatcher == dispatcher })
          || database.tables.deliveries.values.contains(where: { $0.dispatcher == dispatcher })
        {
          fail("dispatcher \(dispatcher) is gone and still holds deliveries")
        }
      }
    case .lease, .settings, .health, .nothing: break
    }
    for pair in database.touched { check(pair) }
  }

  private func requireLease(_ dispatcher: Int) {
    guard let expires = database.tables.lease(dispatcher) else {
      return fail("fencing: dispatcher \(dispatcher) has no lease and yet its step was committed")
    }
    // A step that began in time may take a while.
    if !clockJumped, expires + 5_000_000 < database.clock {
      fail("fencing: the lease of dispatcher \(dispatcher) ran out long ago")
    }
  }

  private func noteCut(_ cut: ModelDatabase.Cutting) {
    if !cut.direct.isEmpty || !cut.parked.isEmpty { requireLease(cut.dispatcher) }
    let tables = database.tables
    var fresh: Set<Int> = []
    for event in tables.events where !cutEvents.contains(event.id) && tables.position.isPast(event) {
      fresh.insert(event.id)
      cutEvents.insert(event.id)
    }
    for pair in cut.direct + cut.parked {
      mix(pair.code)
      if !fresh.contains(pair.event) { fail("\(pair) was cut a second time, or the position is not past it") }
    }
    let pairs = Set(cut.direct + cut.parked)
    for event in fresh.sorted() {
      let type = events[event]!.row.type
      for endpoint in cut.endpoints where endpoint.state != .disabled && endpoint.types.contains(type) {
        expected.insert(Pair(event, endpoint.id))
        if !pairs.contains(Pair(event, endpoint.id)) {
          fail("no loss: the position went past event \(event), and endpoint \(endpoint.id) does not get it")
        }
      }
    }
  }

  /// Conservation for one pair: it is in exactly one place, unless a crash has put it back into another.
  private func check(_ pair: Pair) {
    let tables = database.tables
    let delivery = tables.deliveries[pair]
    var places = delivery == nil ? 0 : 1
    for batch in tables.batches where batch.pairs.contains(pair) && !tables.hasAttempt(pair, batch: batch.id) {
      places += 1
      if tables.lease(batch.dispatcher) == nil { fail("\(pair) is in flight of a dispatcher that is gone") }
    }
    if let holder = delivery?.dispatcher, tables.lease(holder) == nil {
      fail("\(pair) is held by a dispatcher that is gone")
    }
    let isDone = tables.dead[pair] != nil || tables.attempts[pair]?.contains { $0.kind == .delivered } == true
    if places == 0, !isDone, cutEvents.contains(pair.event) { fail("no loss: \(pair) is nowhere") }
    if places + (isDone ? 1 : 0) > 1, excuses[pair] == nil { fail("conservation: \(pair) is in two places") }
    if let key = delivery?.key { checkKey(pair.endpoint, key) }
  }

  /// Of each key the first that waits, and only that, is ready.
  private func checkKey(_ endpoint: Int, _ key: Int) {
    var first: Delivery?
    var ready = 0
    for row in database.tables.deliveries.values where row.pair.endpoint == endpoint && row.key == key {
      if row.ready { ready += 1 }
      if first.map({ row.seq < $0.seq }) ?? true { first = row }
    }
    guard let first else { return }
    if ready != 1 || !first.ready { fail("order: \(ready) of key \(key) of endpoint \(endpoint) are ready") }
  }

  /// The server went down, and may have lost the end of what it had committed.
  func wentDown(before: Tables) {
    guard !isOver else { return }
    let after = database.tables
    trace("the server goes down; position \(before.positions) → \(after.positions)")
    for event in after.events where !after.position.isPast(event) { cutEvents.remove(event.id) }
    if after.events.count != before.events.count { fail("a commit that a publisher saw is gone") }
    for event in before.events {
      for endpoint in before.endpoints {
        let pair = Pair(event.id, endpoint.id)
        let wasHeld = { (tables: Tables) in
          tables.batches.filter { $0.pairs.contains(pair) }.map(\.id) + [tables.deliveries[pair]?.dispatcher ?? 0]
        }
        if before.attempts[pair] != after.attempts[pair] || wasHeld(before) != wasHeld(after) {
          excuses[pair, default: 0] += 1
        }
      }
      for pair in expected where pair.event == event.id && !cutEvents.contains(event.id) { expected.remove(pair) }
    }
    for event in after.events where cutEvents.contains(event.id) {
      for endpoint in after.endpoints where expected.contains(Pair(event.id, endpoint.id)) {
        check(Pair(event.id, endpoint.id))
      }
    }
  }

  // MARK: - Dispatchers

  /// A process died with these in its memory.
  func lost(_ pairs: [Pair]) { for pair in Set(pairs) { excuses[pair, default: 0] += 1 } }

  func sent(_ pair: Pair, by dispatcher: Int) {
    sends += 1
    mix(pair.code)
    trace("\(dispatcher) sends \(pair)")
    guard let event = events[pair.event], event.committed != nil else {
      return fail("atomic publish: \(pair) was never committed")
    }
    let tables = database.tables
    // Its own clock, if that is right, tells a dispatcher to stop before anybody may take over.
    if !clockJumped, tables.lease(dispatcher) == nil { fail("\(pair) is sent under a lease that is gone") }
    guard let endpoint = tables.endpoint(pair.endpoint), endpoint.ordered, let key = event.row.key else { return }
    guard let row = tables.deliveries[pair], row.dispatcher == dispatcher else {
      if excuses[pair] == nil, !clockJumped {
        fail("\(pair) is sent by dispatcher \(dispatcher), which does not hold it")
      }
      return
    }
    let lane = pair.endpoint << 8 | key
    for other in tables.events where other.key == key && other.id != pair.event {
      let otherPair = Pair(other.id, pair.endpoint)
      guard expected.contains(otherPair) else { continue }
      if isBefore(other.id, pair.event), tables.deliveries[otherPair] != nil {
        fail("order: \(pair) is sent while event \(other.id) of its key waits")
      }
      if isBefore(pair.event, other.id), sentInOrder[lane, default: []].contains(otherPair) {
        fail("order: \(pair) is sent after event \(other.id) of its key")
      }
    }
    sentInOrder[lane, default: []].append(pair)
  }

  /// Whether one event was certainly published before another: as a lock that both transactions take would have it.
  private func isBefore(_ a: Int, _ b: Int) -> Bool {
    guard let a = events[a], let b = events[b] else { return false }
    if a.row.tx == b.row.tx { return a.row.id < b.row.id }
    return a.committed.map { $0 < b.inserted } ?? false
  }

  func arrived(_ pair: Pair, isSuccess: Bool) {
    if isSuccess { received[pair, default: 0] += 1 }
  }

  /// A dispatcher learned that a delivery succeeded.
  func acknowledged(_ pair: Pair) {
    acknowledged[pair, default: 0] += 1
    if acknowledged[pair]! > 1 { duplicates += 1 }
    if acknowledged[pair]! > 1 + excuses[pair, default: 0] {
      fail("\(pair) was delivered again, and nothing explains it")
    }
  }

  func holds(_ inFlight: Int, of maxInFlight: Int, _ held: Int, of capacity: Int) {
    if inFlight > maxInFlight || held > capacity {
      fail("bounded: \(inFlight) in flight of \(maxInFlight), \(held) held of \(capacity)")
    }
  }

  // MARK: - The end

  func checkTheEnd() {
    let tables = database.tables
    if publishing > 0 { fail("a publisher has not come to its end") }
    for event in tables.events where !tables.position.isPast(event) {
      return fail("no end: event \(event.id) was not cut; position \(tables.position)")
    }
    if let row = tables.deliveries.values.min(by: { $0.pair < $1.pair }) {
      fail(
        "no end: \(tables.deliveries.count) wait, such as \(row), \(tables.health[row.pair.endpoint] ?? Health()) at \(database.clock)"
      )
    }
    if let batch = tables.batches.first { fail("no end: batch \(batch) is still there, leases \(tables.leases)") }
    for pair in expected.sorted() where tables.dead[pair] == nil && received[pair] == nil {
      fail("no loss: \(pair) neither arrived nor is it a dead letter")
    }
    for (id, event) in events.sorted(by: { $0.key < $1.key }) where event.committed != nil && !cutEvents.contains(id) {
      fail("no loss: event \(id) was committed and never cut")
    }
  }
}
