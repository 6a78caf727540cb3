import DeliveryCore
import HTTPDelivery
import Logging
import OutboxStore
import Postgres

@testable import Dispatcher

/// A process with a dispatcher in it: the real desk and the real loops, each loop in a fiber. Around them, what can happen
/// to a process: it is killed, told to stop, frozen, cut off from the database.
// @unchecked: a world and all in it live on one thread.
final class Host: @unchecked Sendable {
  unowned let world: World
  let number: Int
  private(set) var isAlive = true
  private var frozenUntil = 0
  private(set) var cutOffUntil = 0
  /// What this host's monotonic clock has missed, and where it began.
  private var clockLag = 0
  private let clockOrigin: Int
  private var desk: Desk!
  private let end = StopSignal()
  private let stop = StopSignal()
  private let recordStop = StopSignal()
  private var sessions: [ModelSession] = []
  private var sleepers: [FiberSleeper] = []
  private var fibers = 0
  private var engineIsShut = false
  /// Deliveries under way, by their tag.
  private var exchanges: [UInt64: Pair] = [:]

  init(_ world: World, _ number: Int) {
    self.world = world
    self.number = number
    clockOrigin = world.chance.below(1_000_000_000)
  }

  func start() {
    var limits = Desk.Limits()
    limits.capacity = world.scenario.capacity
    limits.maxInFlight = world.scenario.maxInFlight
    limits.outcomesPerRecord = world.chance.pick([1, 4, 2000])
    limits.plan.eventsPerCut = world.scenario.eventsPerCut
    // Idle time costs the simulation most.
    limits.plan.shortestPoll = .milliseconds(20)
    limits.plan.longestPoll = .milliseconds(300)
    limits.plan.longestWatch = .seconds(1)  // with room for a few looks
    let surroundings = Surroundings(
      now: { [unowned self] in .microseconds(clockOrigin + world.scheduler.now - clockLag) },
      random: { [unowned self] in world.chance.unit() },
      bell: { [unowned self] in
        let sleeper = FiberSleeper(self)
        sleepers.append(sleeper)
        return Bell(sleeper)
      }
    )
    desk = Desk(limits: limits, egress: EgressPolicy(), surroundings: surroundings)
    var configuration = DispatcherConfiguration(
      database: ConnectionConfiguration(connectionString: ""),
      name: "host \(number)",
      http: HTTPEngineConfiguration()
    )
    configuration.lease = .microseconds(world.scenario.lease)
    let logger = Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() }
    let engine = Engine(host: self)
    let intake = IntakeLoop(desk: desk, engine: engine, stop: stop, end: end, logger: logger)
    let record = RecordLoop(desk: desk, stop: recordStop, logger: logger)
    let lease = LeaseLoop(desk: desk, engine: engine, end: end, configuration: configuration, logger: logger)
    loop(desk.leaseBell, logger, waitsForDisk: true) { lease.run($0) }
    loop(desk.intakeBell, logger) { intake.run($0) }
    loop(desk.recordBell, logger) { [unowned self] in
      record.run($0)
      recordHasEnded = true
    }
  }
  private var recordHasEnded = false

  private func loop(
    _ bell: Bell,
    _ logger: Logger,
    waitsForDisk: Bool = false,
    _ body: @escaping (DatabaseLoop) -> Void
  ) {
    let session = ModelSession(self, waitsForDisk: waitsForDisk)
    sessions.append(session)
    let database = DatabaseLoop(
      connect: { () throws(PostgresError) -> any DispatchStore in try session.connected() },
      bell: bell,
      logger: logger
    )
    world.scheduler.spawn(after: world.chance.below(2000)) { body(database) }
  }

  /// Where a fiber goes on after it has waited: not while the host is frozen.
  func thaw() {
    while isAlive, world.scheduler.now < frozenUntil { world.scheduler.sleep(frozenUntil - world.scheduler.now) }
  }

  /// For the trace of a violation.
  var summary: String {
    let busy = desk.withState { state in
      state.flight.busyEndpoints.sorted().map {
        "\($0): \(state.flight.held(by: $0)), room \(state.flight.room(for: $0))"
      }
    }
    return
      "host \(number) is dispatcher \(desk.dispatcher ?? 0), \(isAlive ? "alive" : "dead"), \(desk.status), holds \(busy)"
  }

  // MARK: - What happens to it

  /// At once, in the middle of whatever it does. Its fibers come to their end without being able to do anything more.
  func kill() {
    world.checker.lost(desk.held().map(World.pair) + exchanges.values)
    world.checker.trace("host \(number) is killed")
    isAlive = false
    end.raise()
    stop.raise()
    recordStop.insist()
    for session in sessions { session.breakConnection() }
    for sleeper in sleepers { sleeper.waiter.signal() }
  }

  func freeze(for duration: Int, clockStops: Bool) {
    guard isAlive, world.scheduler.now >= frozenUntil else { return }
    world.checker.trace("host \(number) is frozen for \(duration)")
    frozenUntil = world.scheduler.now + duration
    if clockStops {
      world.checker.clockJumped = true
      // Before it wakes: what wakes at the same moment would see its clock go back.
      world.scheduler.at(frozenUntil - 1) { [self] in clockLag += duration }
    }
  }

  func cutOff(for duration: Int) {
    world.checker.trace("host \(number) is cut off for \(duration)")
    cutOffUntil = world.scheduler.now + duration
    connectionsBroke()
  }

  func connectionsBroke() { for session in sessions { session.breakConnection() } }

  /// SIGTERM: as `Dispatcher.drain` does it.
  func shutDown() {
    world.checker.trace("host \(number) shuts down")
    stop.raise()
    world.scheduler.spawn { [self] in
      desk.stop()
      let deadline = desk.now + .seconds(1)
      while isAlive, desk.isSending, desk.now < deadline { world.scheduler.sleep(10_000) }
      guard isAlive else { return }
      engineIsShut = true
      for (tag, pair) in exchanges.sorted(by: { $0.key < $1.key }) {
        world.checker.lost([pair])
        end(tag, .failure(HTTPFailure(.aborted, "shut down")), nil, 0)
      }
      while isAlive, desk.isSending || desk.hasOutcomes, desk.now < deadline + .seconds(5) {
        world.scheduler.sleep(10_000)
      }
      guard isAlive else { return }
      if desk.hasOutcomes {
        world.checker.lost(desk.held().map(World.pair))
        recordStop.insist()
      }
      recordStop.raise()
      desk.recordBell.ring()
      while isAlive, !recordHasEnded { world.scheduler.sleep(10_000) }
      guard isAlive else { return }
      end.raise()
      desk.intakeBell.ring()
      desk.leaseBell.ring()
      if let dispatcher = desk.dispatcher {
        let session = ModelSession(self, waitsForDisk: true)
        sessions.append(session)
        if let store = try? session.connected() { _ = try? store.release(dispatcher: Int(dispatcher)) }
      }
      isAlive = false
    }
  }

  // MARK: - Requests

  func submit(_ requests: [HTTPRequest]) {
    guard isAlive else { return }
    for request in requests {
      let tag = request.tag
      guard let held = desk.withState({ $0.inFlight[tag]?.held }) else { continue }
      let pair = World.pair(held.key)
      guard !engineIsShut else {
        end(tag, .failure(HTTPFailure(.aborted, "shut down")), nil, 0)
        continue
      }
      exchanges[tag] = pair
      world.checker.sent(pair, by: Int(held.dispatcher))
      let isLate = world.scheduler.now >= frozenUntil ? false : true
      precondition(!isLate, "a frozen host sends")
      world.receiver(pair.endpoint).exchange(
        arrived: { [world] in world.checker.arrived(pair, isSuccess: $0) },
        ended: { [self] in ended(tag, $0, $1, $2) }
      )
    }
    let status = desk.status
    world.checker.holds(
      status.inFlight,
      of: world.scenario.maxInFlight,
      status.inFlight + status.queued,
      of: world.scenario.capacity
    )
  }

  /// The answer is there, or will not come. A frozen host finds it when it wakes.
  private func ended(_ tag: UInt64, _ outcome: HTTPOutcome, _ retryAfter: RetryAfter?, _ took: Int) {
    guard isAlive else { return }
    guard world.scheduler.now >= frozenUntil else {
      return world.scheduler.at(frozenUntil + world.chance.below(1000)) { [self] in
        ended(tag, outcome, retryAfter, took)
      }
    }
    end(tag, outcome, retryAfter, took)
  }

  private func end(_ tag: UInt64, _ outcome: HTTPOutcome, _ retryAfter: RetryAfter?, _ took: Int) {
    if let pair = exchanges.removeValue(forKey: tag), case .response(200) = outcome { world.checker.acknowledged(pair) }
    submit(
      desk.complete([
        HTTPCompletion(tag: tag, outcome: outcome, duration: .microseconds(took), retryAfter: retryAfter)
      ])
    )
  }

  private struct Engine: RequestTaker {
    let host: Host
    func submit(_ requests: [HTTPRequest]) { host.submit(requests) }
  }
}

/// How a loop's thread waits: the fiber blocks, and virtual time goes on.
// @unchecked: see Host.
final class FiberSleeper: Sleeper, @unchecked Sendable {
  private unowned let host: Host
  let waiter: Waiter

  init(_ host: Host) {
    self.host = host
    waiter = Waiter(host.world.scheduler)
  }

  func wake() { waiter.signal() }

  func sleep(upTo timeout: Duration) -> Bool {
    guard host.isAlive else { return false }
    let wasWoken = waiter.wait(upTo: max(1, timeout.wholeMicroseconds))
    host.thaw()
    return wasWoken
  }
}
