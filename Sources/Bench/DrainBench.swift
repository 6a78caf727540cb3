import Foundation

/// How fast one dispatcher empties a full log, and what that costs, beside a bare libcurl loop that posts the same bodies
/// to the same receiver in the same run.
package struct DrainBench: Bench {
  package var events = 100_000
  package var bodyBytes = 500
  /// The endpoint's `max_in_flight`, and the bare loop's concurrency.
  package var inFlight = 64
  package var runs = 1
  package var synchronousCommit = false
  /// A drain that takes longer has come to a halt.
  package var limit: Duration = .seconds(600)
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> DrainReport {
    try await withBenchScene { scene in try await scene.withNginx { try await run(scene, $0) } }
  }

  private func run(_ scene: BenchScene, _ nginx: Nginx) async throws -> DrainReport {
    var rounds: [DrainReport.Round] = []
    var machine: Machine?
    for number in 1...runs {
      progress("round \(number) of \(runs): preloading \(events) events")
      let database = try await BenchDatabase.create("bench_\(number)", on: scene.server)
      if machine == nil { machine = try await scene.machine(version, database, nginx: nginx) }
      try await database.addEndpoint(nginx.url, maxInFlight: inFlight)
      try await database.preload(events: events, bodyBytes: bodyBytes)
      let bodies = try await database.bodies()
      // In turns, now one first and now the other: a machine that slows down in the middle shall hit both.
      var round = DrainReport.Round()
      round.bodyBytes = bodies.map(\.count).reduce(0, +) / bodies.count
      if number.isMultiple(of: 2) {
        try await drain(database, scene, nginx, &round)
        try await measureFloor(bodies, nginx, &round)
      } else {
        try await measureFloor(bodies, nginx, &round)
        try await drain(database, scene, nginx, &round)
      }
      progress(round.text)
      rounds.append(round)
      try await database.drop()
    }
    guard let machine else { throw BenchError("runs must be positive") }
    return DrainReport(
      events: events,
      inFlight: inFlight,
      commitMode: DispatcherProcess.Options(synchronousCommit: synchronousCommit).commitMode,
      machine: machine,
      rounds: rounds
    )
  }

  private func measureFloor(_ bodies: [[UInt8]], _ nginx: Nginx, _ round: inout DrainReport.Round) async throws {
    let loop = BareLoop(
      url: nginx.url,
      bodies: bodies,
      userAgent: "Martlet/\(version)",
      concurrency: inFlight,
      requests: events
    )
    let receiver = nginx.cpuSeconds
    let result = try await loop.run()
    round.barePerSecond = Double(events) / result.seconds
    round.bareMicroseconds = result.cpuSeconds * 1e6 / Double(events)
    round.bareReceiverMicroseconds = (nginx.cpuSeconds - receiver) * 1e6 / Double(events)
  }

  private func drain(
    _ database: BenchDatabase,
    _ scene: BenchScene,
    _ nginx: Nginx,
    _ round: inout DrainReport.Round
  ) async throws {
    let before = try await DatabaseCounters(database)
    let (receiver, postgres) = (nginx.cpuSeconds, scene.postgresSeconds)
    let options = DispatcherProcess.Options(synchronousCommit: synchronousCommit)
    round = try await scene.withDispatchers(on: database, options) { [round] dispatchers in
      var round = round
      let dispatcher = dispatchers[0]
      try await wait(within: limit, every: .milliseconds(50), for: "the drain") {
        try await dispatcher.check()
        return try await database.isDrained()
      }
      let count = Double(events)
      round.dispatcherMicroseconds = dispatcher.cpuSeconds * 1e6 / count
      round.postgresMicroseconds = (scene.postgresSeconds - postgres) * 1e6 / count
      round.receiverMicroseconds = (nginx.cpuSeconds - receiver) * 1e6 / count
      round.peakMegabytes = Double(dispatcher.peakBytes) / 1_048_576
      let drained = try await database.requireDelivered(events)
      round.perSecond = count / drained.seconds
      round.claimed = drained.claimed
      round.batches = try await database.numbers("SELECT count(DISTINCT batch_id) FROM outbox.attempt")[0]
      return round
    }
    // A backend hands in its counts when it ends; the statistics of a live one may be a second old.
    let after = try await DatabaseCounters(database)
    round.walBytes = (after.walBytes - before.walBytes) / Double(events)
    round.deadRows = after.deadRows - before.deadRows
    round.transactions = after.transactions - before.transactions
  }
}
