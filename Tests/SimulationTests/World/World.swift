import DeliveryCore
import Foundation
import HTTPDelivery
import OutboxStore
import Postgres

@testable import Dispatcher

/// One run: publishers, the database, dispatchers, endpoints, the network between them, and whoever checks. Everything
/// follows from the seed.
final class World {
  let seed: UInt64
  let chance: Chance
  let scheduler: Scheduler
  let scenario: Scenario
  let database: ModelDatabase
  let checker: Checker
  private(set) var hosts: [Host] = []
  private var receivers: [Receiver] = []
  /// Until then things go wrong; afterwards all must come to rest.
  let troubleEnds: Int
  /// No run may take longer than this after the trouble.
  static let patience = 240_000_000

  init(seed: UInt64, mutation: Mutation? = nil, trace: Bool = false) {
    self.seed = seed
    chance = Chance(seed)
    scenario = Scenario(chance)
    scheduler = Scheduler(chance)
    database = ModelDatabase(scheduler: scheduler)
    database.mutation = mutation
    troubleEnds = chance.between(2_000_000, 6_000_000)
    checker = Checker(scheduler, database, keepsTrace: trace)
  }

  var isTroubled: Bool { scheduler.now < troubleEnds }

  /// Runs to the end, or to the first violation.
  func run() -> Checker {
    setUp()
    let end = troubleEnds + Self.patience
    while checker.violation == nil, scheduler.step(until: end) {
      if scheduler.steps > 150_000 {
        checker.fail("no end: \(scheduler.steps) steps")
      } else if !isTroubled, scheduler.steps % 64 == 0, isAtRest {
        checker.checkTheEnd()
        break
      }
    }
    if checker.violation == nil, scheduler.now >= troubleEnds, !isAtRest { checker.checkTheEnd() }
    if checker.violation != nil { for host in hosts { checker.trace(host.summary) } }
    tearDown()
    return checker
  }

  private var isAtRest: Bool {
    checker.publishing == 0 && database.tables.deliveries.isEmpty && database.tables.batches.isEmpty
      && database.tables.events.allSatisfy(database.tables.position.isPast)
  }

  private func setUp() {
    database.onCommit = { [checker] in checker.committed($0) }
    database.pause = { [unowned self] in
      if isTroubled, chance.permille(scenario.slowSteps) {
        scheduler.sleep(chance.below(chance.pick([1000, 50_000, 2_000_000])))
      }
    }
    for id in 1...scenario.endpoints {
      var endpoint = EndpointRow(id: id)
      endpoint.ordered = id == 2 || id == 4 && chance.oneIn(2)
      endpoint.types = chance.oneIn(3) ? [0] : [0, 1]
      endpoint.failureThreshold = chance.pick([2, 4, 10])
      endpoint.maxAttempts = chance.pick([2, 5, 15])
      endpoint.maxInFlight = chance.pick([1, 3, 32])
      endpoint.timeout = chance.pick([100_000, 500_000, 1_500_000])
      endpoint.firstDelay = chance.pick([20_000, 200_000])
      database.addEndpoint(endpoint)
      receivers.append(Receiver(self, endpoint))
    }
    for number in 1...scenario.hosts { start(number) }
    for _ in 0..<scenario.transactions {
      checker.publishing += 1
      scheduler.at(chance.below(troubleEnds)) { [unowned self] in publish() }
    }
    planTrouble()
    scheduler.at(troubleEnds) { [unowned self] in endTrouble() }
  }

  func start(_ number: Int) {
    let host = Host(self, number)
    hosts.append(host)
    host.start()
  }

  func receiver(_ endpoint: Int) -> Receiver { receivers[endpoint - 1] }

  // MARK: - Publishers

  /// A transaction that inserts some events, perhaps over a while, and commits or does not.
  private func publish() {
    guard database.isUp else { return endPublishing() }
    let tx = database.begin()
    let epoch = database.epoch
    let commits = !chance.oneIn(5)
    // Some write something else first, and have their place in the log before they have their events.
    let writesFirst = chance.oneIn(3)
    if writesFirst {
      scheduler.after(chance.below(chance.pick([1000, 200_000, 3_000_000]))) { [unowned self] in
        insertEvents(tx, epoch, commits)
      }
    } else {
      insertEvents(tx, epoch, commits)
    }
  }

  private func insertEvents(_ tx: Int, _ epoch: Int, _ commits: Bool) {
    let inserted = scheduler.now
    var events: [EventRow] = []
    for _ in 0..<chance.pick([1, 1, 2, 4, 12]) {
      var event = EventRow(
        id: database.newEvent(),
        tx: tx,
        type: chance.below(2),
        key: chance.oneIn(3) ? nil : chance.below(2)
      )
      if chance.oneIn(10) { event.notBefore = database.clock + chance.below(1_000_000) }
      events.append(event)
    }
    scheduler.after(chance.below(chance.pick([1, 1000, 200_000, 3_000_000]))) { [unowned self] in
      checker.isAboutToCommit(events, insertedAt: inserted)
      _ = database.end(tx, of: epoch, commits ? events : nil)
      endPublishing()
    }
  }

  private func endPublishing() { checker.publishing -= 1 }

  // MARK: - Trouble

  private func planTrouble() {
    func plan(_ count: Int, _ what: @escaping () -> Void) {
      for _ in 0..<count { scheduler.at(chance.below(troubleEnds), what) }
    }
    plan(scenario.kills) { [unowned self] in
      let host = chance.pick(hosts)
      guard host.isAlive else { return }
      host.kill()
      scheduler.after(chance.below(2_000_000)) { [unowned self] in start(hosts.count + 1) }
    }
    plan(scenario.shutdowns) { [unowned self] in
      let host = chance.pick(hosts)
      guard host.isAlive else { return }
      host.shutDown()
      scheduler.after(chance.below(2_000_000)) { [unowned self] in start(hosts.count + 1) }
    }
    plan(scenario.freezes) { [unowned self] in
      chance.pick(hosts).freeze(for: chance.below(2 * scenario.lease), clockStops: chance.oneIn(3))
    }
    plan(scenario.partitions) { [unowned self] in chance.pick(hosts).cutOff(for: chance.below(2 * scenario.lease)) }
    plan(scenario.crashes) { [unowned self] in goDown(crash: true) }
    plan(scenario.restarts) { [unowned self] in goDown(crash: false) }
    plan(scenario.clockJumps) { [unowned self] in
      checker.clockJumped = true
      database.clockOffset += chance.between(-2 * scenario.lease, 2 * scenario.lease)
    }
    plan(scenario.operators) { [unowned self] in
      let id = 1 + chance.below(scenario.endpoints)
      guard database.isUp else { return }
      database.setState(id, chance.oneIn(2) ? .paused : .enabled)
    }
  }

  private func goDown(crash: Bool) {
    guard database.isUp else { return }
    let before = database.tables
    database.goDown(crash: crash) { [chance] in chance.below($0 + 1) }
    checker.wentDown(before: before)
    for host in hosts { host.connectionsBroke() }
    scheduler.after(chance.below(chance.pick([1000, 300_000, 2 * scenario.lease]))) { [database] in database.comeBack()
    }
  }

  /// From here on everything works: somebody dispatches, all endpoints answer, nobody keeps them from it.
  private func endTrouble() {
    if !database.isUp { scheduler.after(3_000_000) { [unowned self] in resumeAll() } } else { resumeAll() }
    // A 410 that was on its way may yet disable an endpoint.
    for later in [5_000_000, 30_000_000] { scheduler.after(later) { [unowned self] in resumeAll() } }
    if !hosts.contains(where: \.isAlive) { start(hosts.count + 1) }
  }

  private func resumeAll() {
    if !database.isUp { database.comeBack() }
    for endpoint in database.tables.endpoints where endpoint.state != .enabled {
      database.setState(endpoint.id, .enabled)
    }
  }

  private func tearDown() {
    for host in hosts where host.isAlive { host.kill() }
    if database.isUp { database.goDown(crash: false) }
    checker.isOver = true
    var left = 50_000
    while left > 0, scheduler.step(until: .max) { left -= 1 }
  }
}

extension World {
  static func uuid(_ event: Int) -> UUID {
    let e = UInt64(event)
    func byte(_ shift: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: e >> shift) }
    return UUID(uuid: (0, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, byte(24), byte(16), byte(8), byte(0)))
  }

  static func event(_ id: UUID) -> Int {
    let u = id.uuid
    return Int(u.12) << 24 | Int(u.13) << 16 | Int(u.14) << 8 | Int(u.15)
  }

  static func pair(_ key: DeliveryKey) -> Pair { Pair(event(key.event), Int(key.endpoint)) }
}

extension Duration {
  /// Rounded up: who waits for less than that would wait for nothing.
  var wholeMicroseconds: Int {
    let (seconds, attoseconds) = components
    return Int(clamping: seconds) &* 1_000_000 + Int((attoseconds + 999_999_999_999) / 1_000_000_000_000)
  }
}
