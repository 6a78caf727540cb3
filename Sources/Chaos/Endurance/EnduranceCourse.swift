import EmbeddedPostgres
import Foundation
import Postgres
import Rig
import Synchronization

/// One endurance run under way.
struct EnduranceCourse: Sendable {
  let run: EnduranceRun
  let saboteur: Saboteur
  let receiver: RawReceiver
  let tally: Tally
  let clock: ServerClock
  private let began = ContinuousClock.now
  private let isOver = StopFlag()

  /// What was done, and what went wrong of itself.
  private struct Log {
    var caught: [Caught] = []
    /// See ``Incident/victims``.
    var victims: Set<Int64> = []
    var mishaps: [Mishap.Entry: Mishap] = [:]
    /// When mishaps were last looked for, by the database's clock.
    var looked = 0.0
    var days = 0
  }

  private var crew: Crew { saboteur.crew }
  private var observer: Observer { saboteur.observer }

  init(run: EnduranceRun, saboteur: Saboteur, receiver: RawReceiver, tally: Tally, clock: ServerClock) {
    (self.run, self.saboteur, self.receiver, self.tally, self.clock) = (run, saboteur, receiver, tally, clock)
  }

  /// Of the run, 0 to 1.
  private var progress: Double {
    let deliveries = Double(tally.answeredCount) / Double(run.deliveries)
    let time = run.duration.map { (.now - began).seconds / $0.seconds } ?? 0
    return min(1, max(deliveries, time))
  }

  func play(_ keeper: ChildKeeper, _ logs: URL) async throws -> EnduranceReport {
    return try await withThrowingTaskGroup(of: Void.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await crew.supervise() }
      for place in 0..<Crew.size { try await saboteur.ready(place) }
      async let publishing: Void = publish(keeper, logs)
      async let tenths = measure()
      var log = Log()
      do {
        try await disturb(&log)
      } catch {
        // Otherwise nobody would tell the publishers, for whom the end of this scope waits.
        isOver.set()
        throw error
      }
      isOver.set()
      try await publishing
      let expected = tally.committedCount * Tally.paths.count
      try await settle(observer, expected: expected, patience: EnduranceRun.patience) { tally.answeredCount }
      let missing = try await observer.int(
        "SELECT missing FROM outbox.conservation(now() - interval '1 day', max_events => 10000000)"
      )
      let measured = try await tenths
      try await look(&log)
      try await crew.dismiss()
      return report(log, measured, missing: missing)
    }
  }

  // MARK: Publishing

  private func publish(_ keeper: ChildKeeper, _ logs: URL) async throws {
    // If one publisher ends before its time, so does the run.
    defer { isOver.set() }
    try await Publishers(
      count: BulkPublisher.count,
      isBulk: true,
      seed: run.seed,
      database: saboteur.servers.connectionString(user: "app"),
      keeper: keeper,
      logs: logs
    ).run(permit: waitForRoom) { (batch: BulkPublisher.Batch) in tally.note(batch) }
  }

  /// Blocks until there is room for more; false when the run is over.
  private func waitForRoom() -> Bool {
    while !isOver.isSet, progress < 1, tally.committedCount * Tally.paths.count < run.deliveries {
      if tally.backlog < EnduranceRun.backlogLimit { return true }
      usleep(1000)
    }
    return false
  }

  // MARK: Disturbing

  /// Days and faults, one after the other, until the run is over.
  private func disturb(_ log: inout Log) async throws {
    var random = SeededGenerator(seed: run.seed, stream: 1)
    var deck: [Fault] = []
    var dayBegan = ContinuousClock.now
    var next = began + run.faultEvery
    var last = (count: 0, at: ContinuousClock.now)
    while !isOver.isSet, progress < 1, last.at + EnduranceRun.longestPause > .now {
      let count = tally.answeredCount
      if count > last.count { last = (count, .now) }
      if progress * Double(EnduranceRun.days) >= Double(log.days + 1), dayBegan + EnduranceRun.shortestDay < .now {
        // Before retention takes the last day's history, and as long as the time in it is that of the clock.
        try await look(&log)
        log.days += 1
        dayBegan = .now
        run.tell("\(time) day \(log.days): \(try await clock.set(day: log.days, crew, observer))")
      }
      if next <= .now {
        // Each kind once before any comes again.
        if deck.isEmpty { deck = EnduranceRun.faults.shuffled(using: &random) }
        let incident = try await inject(deck.removeLast(), &random)
        log.caught.append(Caught(incident))
        log.victims.formUnion(incident.victims)
        guard log.caught.reduce(0, { $0 + $1.codes.count }) <= Tally.caughtLimit else {
          throw ChaosError("faults caught more deliveries than can be remembered (\(Tally.caughtLimit))")
        }
        while next <= .now { next += run.faultEvery }
      }
      try await Task.sleep(for: .milliseconds(100))
    }
  }

  /// Notes what went wrong of itself since the last look.
  private func look(_ log: inout Log) async throws {
    let now = try await observer.serverTime()
    // What was being written at the last look was not seen then.
    for mishap in try await observer.mishaps(since: log.looked - 60, timeout: EnduranceRun.timeoutSeconds)
    where log.mishaps[mishap.entry] == nil {
      log.mishaps[mishap.entry] = mishap
    }
    log.looked = now
  }

  private func inject(_ fault: Fault, _ random: inout SeededGenerator) async throws -> Incident {
    let place = Int.random(in: 0..<Crew.size, using: &random)
    let began = ContinuousClock.now
    var incident = Incident(fault: fault, began: began, ended: began)
    switch fault {
    case .receiverNetwork: try await disturbReceiver(&random, &incident)
    default: try await saboteur.inject(fault, at: place, &random, &incident)
    }
    incident.ended = .now
    run.tell("\(time) \(fault.rawValue), in flight \(incident.inFlight.count), for \(text((.now - began).seconds)) s")
    return incident
  }

  private func disturbReceiver(_ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    defer { receiver.become(.fair) }
    switch Int.random(in: 0..<6, using: &random) {
    case 0: incident.inFlight = try await receiver.cut(reset: true)
    case 1: incident.inFlight = try await receiver.cut(reset: false)
    case 2:
      receiver.become(.failing(share: 0.5))
      try await Task.sleep(for: .milliseconds(Int.random(in: 1000...4000, using: &random)))
    case 3:
      receiver.become(.slow(milliseconds: Int.random(in: 50...800, using: &random)))
      try await Task.sleep(for: .seconds(3))
    case 4:
      receiver.become(.refusing)
      incident.inFlight = try await receiver.cut(reset: true)
      try await Task.sleep(for: .milliseconds(Int.random(in: 300...1500, using: &random)))
    default:
      // Often beyond the endpoints' timeout. What nobody waits for any more is never read.
      receiver.become(.silent)
      try await Task.sleep(for: .milliseconds(Int.random(in: 500...8000, using: &random)))
      incident.inFlight = try await receiver.cut(reset: true)
    }
  }

  // MARK: Measuring

  private func measure() async throws -> [Tenth] {
    var tenths: [Tenth] = []
    var meter = TenthMeter(answered: tally.answeredCount, at: .now)
    var minute = (at: ContinuousClock.now, answered: 0)
    while tenths.count < 10 {
      try await Task.sleep(for: .seconds(1))
      meter.second(
        answered: tally.answeredCount,
        dispatchers: (0..<Crew.size).compactMap { crew.child($0)?.pid },
        postmaster: saboteur.servers.primary.pid,
        now: .now
      )
      if .now - minute.at >= .seconds(60) {
        let answered = tally.answeredCount
        let rate = Double(answered - minute.answered) / (.now - minute.at).seconds
        run.tell(
          "\(time) \(answered) of \(run.deliveries) deliveries, \(Int(rate))/s, \(tally.backlog) outstanding, \(tally.repeatedCount) repeated"
        )
        minute = (.now, answered)
      }
      // Of a run that is over the tenth that is under way is the last.
      if progress * 10 >= Double(tenths.count + 1) || isOver.isSet {
        tenths.append(meter.close(sizes: try await observer.sizes()))
        if isOver.isSet { break }
      }
    }
    return tenths
  }

  // MARK: Ending

  private func report(_ log: Log, _ tenths: [Tenth], missing: Int) -> EnduranceReport {
    let state = tally.state.withLock { $0 }
    let mishaps = Mishap.caught(Array(log.mishaps.values), except: log.victims)
    for one in mishaps { run.tell("\(Int((one.began - began).seconds)) s: \(one.cause.name), \(one.codes.count) lost") }
    // Last the faults: what one of them explains is its.
    let caught = mishaps + log.caught
    let explanation = Explanation(state.repetitions, caught)
    var report = EnduranceReport()
    (report.command, report.seed) = (run.command, run.seed)
    report.machine = HostDescription.text(postgres: saboteur.servers.primary.version)
    (report.transactions, report.commitsLookedUp) = (state.transactions, state.lookedUp)
    (report.committed, report.rolledBack) = (state.committed.count, state.rolledBack)
    for (place, endpoint) in state.endpoints.enumerated() {
      let path = Tally.paths[place]
      let lost = state.committed.subtracting(endpoint.answered, naming: 5)
      let phantom = endpoint.arrived.subtracting(state.committed, naming: 5)
      report.lost += lost.count
      report.phantom += phantom.count
      report.delivered += endpoint.answered.count
      report.outOfOrder += endpoint.misordered
      report.suspects += lost.first.map { "lost: event \($0) at \(path)" }
      report.suspects += phantom.first.map { "phantom: event \($0) at \(path)" }
    }
    report.repeated = state.repeated
    // What was not remembered cannot be explained.
    report.unexplained = explanation.unexplained.count + state.repeated - state.repetitions.count
    report.suspects += explanation.unexplained.prefix(5).map {
      "repeated without a reason: event \($0.event) at \(Tally.paths[$0.endpoint])"
    }
    report.malformed = state.refused + state.renamed
    (report.unbalanced, report.days) = (missing, log.days)
    report.dispatchersEnded = crew.endsByItself
    report.seconds = tenths.reduce(0) { $0 + $1.seconds }
    report.tenths = tenths
    report.faults = Injections.lines(caught, explanation)
    return report
  }

  private var time: String { "\(Int((.now - began).seconds)) s:" }
  private func text(_ seconds: Double) -> String { String(format: "%.1f", seconds) }
}
