import Foundation
import Postgres
import Synchronization

/// What endpoints that behave notice of four that do not: the same load in turns alone and beside the faults, each time on
/// a database and with a dispatcher of its own.
package struct NeighboursBench: Bench {
  package enum Fault: String, CaseIterable, Sendable, Codable, CodingKeyRepresentable {
    /// Takes the request and says nothing until the deadline.
    case hang
    /// Answers 500.
    case error
    /// Gets many times what it can take.
    case busy
    /// The name servers of its domain say nothing.
    case dns
  }

  /// Endpoints that behave.
  package var neighbours = 96
  /// Events a second for all of them together, one a transaction.
  package var rate = 96
  /// Events a second for each of the others, in transactions of one; for a busy one in as many transactions.
  package var faultRate = 20
  /// Requests a second that a busy one takes, and how many times as many it gets.
  package var busyTakes = 20
  package var busyFactor = 50.0
  /// Endpoints with each of the faults.
  package var each = 1
  package var faults = Set(Fault.allCases)
  package var seconds = 30
  package var rounds = 5
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  private static let faultNumbers = 1_000_000_000
  private static let warmUpSeconds = 2

  package func run() async throws -> NeighboursReport {
    // A host of its own for each: 127.1.0.1 and so on.
    let addresses = LoopbackServer.addresses(neighbours + Fault.allCases.count * each)
    let receivers = try Receivers(addresses: addresses, busyTakes: busyTakes, each: each)
    receivers.start()
    defer { receivers.stop() }
    return try await withBenchScene { bench in
      var (nameServer, dnsProblem): (SilentNameServer?, String?) = (nil, nil)
      if faults.contains(.dns) {
        do {
          nameServer = try await SilentNameServer(in: bench.directory, launcher: bench.launcher)
        } catch let error as BenchError {
          dnsProblem = error.description
          progress("the silent name server is not measured: it \(error.description)")
        }
      }
      return try await run(Scene(bench: bench, receivers: receivers, nameServer: nameServer), dnsProblem: dnsProblem)
    }
  }

  private struct Scene {
    let bench: BenchScene
    let receivers: Receivers
    let nameServer: SilentNameServer?
  }

  private func run(_ scene: Scene, dnsProblem: String?) async throws -> NeighboursReport {
    var rounds: [NeighboursReport.Round] = []
    var machine: Machine?
    for number in 1...self.rounds {
      // In turns, now one first and now the other: a machine that slows down in the middle shall hit both.
      var round: [Bool: NeighboursReport.Phase] = [:]
      for withFaults in number.isMultiple(of: 2) ? [true, false] : [false, true] {
        let name = "bench_\(number)_\(withFaults ? "beside" : "alone")"
        let database = try await BenchDatabase.create(name, on: scene.bench.server)
        if machine == nil { machine = try await scene.bench.machine(version, database) }
        let phase = try await measure(database, scene, withFaults: withFaults)
        progress("round \(number) of \(self.rounds), \(withFaults ? "beside the faults" : "alone"): \(phase.text)")
        round[withFaults] = phase
        try await database.drop()
      }
      guard let alone = round[false], let beside = round[true] else { continue }
      rounds.append(NeighboursReport.Round(alone: alone, beside: beside))
    }
    guard let machine else { throw BenchError("rounds must be positive") }
    var notMeasured: [Fault: String] = [:]
    if let dnsProblem { notMeasured[.dns] = dnsProblem }
    return NeighboursReport(
      neighbours: neighbours,
      rate: rate,
      faultRate: faultRate,
      busyTakes: busyTakes,
      busyFactor: busyFactor,
      each: each,
      seconds: seconds,
      faults: Fault.allCases.filter { faults.contains($0) && notMeasured[$0] == nil },
      notMeasured: notMeasured,
      machine: machine,
      rounds: rounds,
      alone: Distribution(rounds.flatMap(\.alone.latencies)),
      beside: Distribution(rounds.flatMap(\.beside.latencies))
    )
  }

  // MARK: - One phase

  private func measure(_ database: BenchDatabase, _ scene: Scene, withFaults: Bool) async throws
    -> NeighboursReport.Phase
  {
    try await addEndpoints(database, scene, withFaults: withFaults)
    let options = DispatcherProcess.Options(nameServer: scene.nameServer, graceSeconds: 3)
    var stopping: UInt64 = 0
    var phase = try await scene.bench.withDispatchers(on: database, options) { dispatchers in
      let dispatcher = dispatchers[0]
      var phase = NeighboursReport.Phase()
      // Everything stands when the measuring and the faults begin: connections, prepared statements, settings.
      let warmUp = try await publish(database, first: 0, seconds: Self.warmUpSeconds)
      try await waitForArrival(of: warmUp, scene, dispatcher)
      try await database.session.withConnection { try $0.execute("CHECKPOINT") }
      scene.receivers.forget()

      let (ours, postgres) = (dispatcher.cpuSeconds, scene.bench.postgresSeconds)
      let bench = ProcessUsage.ownSeconds()
      let (machine, began) = (ProcessUsage.machine(), monotonicNanoseconds())
      let (published, threads) = try await publishAll(database, dispatcher, withFaults: withFaults)
      let elapsed = Double(monotonicNanoseconds() - began) / 1e9
      let machineAfter = ProcessUsage.machine()
      phase.dispatcherShare = (dispatcher.cpuSeconds - ours) / elapsed
      phase.postgresShare = (scene.bench.postgresSeconds - postgres) / elapsed
      phase.benchShare = (ProcessUsage.ownSeconds() - bench) / elapsed
      phase.machineShare = Double(machineAfter.busy - machine.busy) / Double(max(1, machineAfter.all - machine.all))
      phase.threads = threads
      try await waitForArrival(of: published, scene, dispatcher)
      let arrivals = scene.receivers.arrivals.all
      let delays = published.compactMap { event in
        // Signed: the dispatcher may see a commit before the publisher hears of it.
        arrivals[event.number].map { (at: event.committed, took: (Double($0) - Double(event.committed)) / 1e6) }
      }
      phase.latencies = delays.map(\.took)
      phase.latency = Distribution(phase.latencies)
      phase.slowest = delays.sorted { $0.took > $1.took }.prefix(3).map {
        NeighboursReport.Slow(second: Double($0.at - began) / 1e9, milliseconds: $0.took)
      }
      phase.commit = Distribution(published.map { Double($0.committed - $0.began) / 1e6 })
      phase.timerDelay = Distribution(published.filter(\.isOnTime).map { Double($0.began - $0.due) / 1e6 })
      try await database.waitUntilCut(within: .seconds(60))
      phase.peakMegabytes = Double(dispatcher.peakBytes) / 1_048_576
      phase.faults = try await faultStates(database)
      stopping = monotonicNanoseconds()
      return phase
    }
    phase.stopSeconds = Double(monotonicNanoseconds() - stopping) / 1e9
    phase.conservation = try await database.requireNothingMissing()
    return phase
  }

  private func addEndpoints(_ database: BenchDatabase, _ scene: Scene, withFaults: Bool) async throws {
    let urls = scene.receivers.arrivals.urls
    for number in 0..<neighbours {
      try await database.addEndpoint(urls[number], eventTypes: [Self.type(ofNeighbour: number)])
    }
    for (number, (fault, which)) in faulty.enumerated() {
      var url = urls[neighbours + number]
      if withFaults, faults.contains(fault) { url = scene.receivers.url(of: fault, which) ?? url }
      if withFaults, fault == .dns, scene.nameServer != nil { url = "http://hooks\(which).nowhere.example/hook" }
      try await database.addEndpoint(url, eventTypes: [Self.type(of: fault, which)])
    }
    try await database.stampSubscriptions()
  }

  private static func type(ofNeighbour number: Int) -> String { "neighbour.\(number)" }
  private static func type(of fault: Fault, _ which: Int) -> String { "\(fault.rawValue).\(which)" }

  /// All endpoints that are not neighbours.
  private var faulty: [(Fault, Int)] { Fault.allCases.flatMap { fault in (0..<each).map { (fault, $0) } } }

  private var filler: String { String(repeating: "x", count: max(0, bodyBytes - 100)) }

  /// For the neighbours, one after the other.
  private func publish(_ database: BenchDatabase, first: Int, seconds: Int) async throws -> [Published] {
    let filler = filler
    return try await SteadyPublisher(session: database.session, rate: rate).publish(first: first, count: rate * seconds)
    {
      try $0.publish($1, type: Self.type(ofNeighbour: $1 % neighbours), filler: filler)
    }
  }

  /// Both phases have the same transactions; but beside the faults, the busy endpoint's are that much larger.
  private func publishAll(_ database: BenchDatabase, _ dispatcher: DispatcherProcess, withFaults: Bool) async throws
    -> (neighbours: [Published], threads: Int)
  {
    let filler = filler
    let (others, busy) = (database.anotherSession(), database.anotherSession())
    let steady = faulty.filter { $0.0 != .busy }.map(Self.type)
    let crowds = faulty.filter { $0.0 == .busy }.map(Self.type)
    let factor = withFaults && faults.contains(.busy) ? busyFactor : 1
    let times = max(1, Int(factor * Double(busyTakes) / Double(faultRate)))
    let sampler = Task {
      var most = 0
      while !Task.isCancelled {
        most = max(most, dispatcher.threads)
        try? await Task.sleep(for: .milliseconds(100))
      }
      return most
    }
    defer { sampler.cancel() }
    async let ours = publish(database, first: rate * Self.warmUpSeconds, seconds: seconds)
    async let theirs = SteadyPublisher(session: others, rate: faultRate * steady.count)
      .publish(first: Self.faultNumbers, count: faultRate * steady.count * seconds) {
        try $0.publish($1, type: steady[$1 % steady.count], filler: filler)
      }
    async let crowd = SteadyPublisher(session: busy, rate: faultRate * crowds.count)
      .publish(first: 2 * Self.faultNumbers, count: faultRate * crowds.count * seconds) {
        try $0.publish($1, type: crowds[$1 % crowds.count], filler: filler, times: times)
      }
    let published = try await ours
    _ = try await (theirs, crowd)
    await others.disconnect()
    await busy.disconnect()
    sampler.cancel()
    return (published, await sampler.value)
  }

  private func waitForArrival(of events: [Published], _ scene: Scene, _ dispatcher: DispatcherProcess) async throws {
    try await wait(within: .seconds(60), for: "the arrival of all events") {
      try await dispatcher.check()
      let arrivals = scene.receivers.arrivals.all
      return events.allSatisfy { arrivals[$0.number] != nil }
    }
  }

  private func faultStates(_ database: BenchDatabase) async throws -> [Fault: NeighboursReport.FaultState] {
    var states: [Fault: NeighboursReport.FaultState] = [:]
    for fault in faults {
      let row = try await database.session.withConnection { connection in
        try connection.queryText(
          """
          SELECT coalesce(h.state, 'closed'), h.last_error,
            (SELECT count(*) FROM outbox.attempt a WHERE a.endpoint_id = e.id AND a.outcome IN ('delivered', 'failed')),
            (SELECT count(*) FROM outbox.delivery d WHERE d.endpoint_id = e.id)
          FROM outbox.endpoint e LEFT JOIN outbox.endpoint_health h ON h.endpoint_id = e.id WHERE e.event_types = $1
          """,
          [.textArray([Self.type(of: fault, 0)])]
        ).rows[0]
      }
      states[fault] = NeighboursReport.FaultState(
        circuit: row[0] ?? "",
        lastError: row[1],
        attempts: row[2].flatMap { Int($0) } ?? 0,
        waiting: row[3].flatMap { Int($0) } ?? 0
      )
    }
    return states
  }
}

/// Those that behave, and those that do not.
private final class Receivers: Sendable {
  let arrivals: ArrivalListener
  private let hanging: LoopbackServer
  private let failing: LoopbackServer
  private let busy: [LoopbackServer]

  init(addresses: [UInt32], busyTakes: Int, each: Int) throws {
    arrivals = try ArrivalListener(addresses: addresses)
    hanging = try LoopbackServer { _, _ in .never }
    failing = try LoopbackServer { _, _ in .now(status: "500 Internal Server Error") }
    busy = try (0..<each).map { _ in try .taking(busyTakes) }
  }

  func url(of fault: NeighboursBench.Fault, _ which: Int) -> String? {
    switch fault {
    case .hang: "http://127.0.0.1:\(hanging.port)/hook"
    case .error: "http://127.0.0.1:\(failing.port)/hook"
    case .busy: "http://127.0.0.1:\(busy[which].port)/hook"
    case .dns: nil
    }
  }

  func start() {
    arrivals.start()
    for server in [hanging, failing] + busy { server.start() }
  }

  func stop() {
    arrivals.stop()
    for server in [hanging, failing] + busy { server.stop() }
  }

  func forget() { arrivals.forget() }
}
