import EmbeddedPostgres
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
    try await withTemporaryDirectory { directory in
      let launcher = ChildLauncher(directory: directory)
      let nginx = try await Nginx.start(in: directory, launcher: launcher)
      let options = EmbeddedPostgres.Options(settings: BenchDatabase.settings, fsync: true)
      let report = try await withEmbeddedPostgres(options) { server in
        try await run(server, nginx, launcher)
      }
      try await nginx.stop()
      return report
    }
  }

  private func run(_ server: EmbeddedPostgres, _ nginx: Nginx, _ launcher: ChildLauncher) async throws -> DrainReport {
    var rounds: [DrainReport.Round] = []
    var machine: Machine?
    for number in 1...runs {
      progress("round \(number) of \(runs): preloading \(events) events")
      let database = try await BenchDatabase.create("bench_\(number)", on: server)
      if machine == nil {
        let settings = try await database.settings()
        machine = Machine(version: version, postgres: server.version, nginx: nginx.version, settings: settings)
      }
      try await database.addEndpoint(nginx.url, maxInFlight: inFlight)
      try await database.preload(events: events, bodyBytes: bodyBytes)
      let bodies = try await database.bodies()
      // In turns, now one first and now the other: a machine that slows down in the middle shall hit both.
      var round = DrainReport.Round()
      round.bodyBytes = bodies.map(\.count).reduce(0, +) / bodies.count
      if number.isMultiple(of: 2) {
        try await drain(database, server, nginx, launcher, &round)
        try await measureFloor(bodies, nginx, &round)
      } else {
        try await measureFloor(bodies, nginx, &round)
        try await drain(database, server, nginx, launcher, &round)
      }
      progress(round.text)
      rounds.append(round)
      try await database.drop()
    }
    guard let machine else { throw BenchError("runs must be positive") }
    return DrainReport(
      events: events,
      inFlight: inFlight,
      commitMode: synchronousCommit ? "synchronous" : "asynchronous (the dispatcher's default)",
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
    _ server: EmbeddedPostgres,
    _ nginx: Nginx,
    _ launcher: ChildLauncher,
    _ round: inout DrainReport.Round
  ) async throws {
    guard let postmaster = server.pid else { throw BenchError("PostgreSQL is not running") }
    let before = try await DatabaseCounters(database)
    let (receiver, postgres) = (nginx.cpuSeconds, ProcessUsage.treeSeconds(of: postmaster))
    let dispatcher = try await DispatcherProcess.start(
      database,
      .init(synchronousCommit: synchronousCommit),
      launcher: launcher
    )
    do {
      try await waitUntilDrained(database, dispatcher)
    } catch {
      try? await dispatcher.stop()
      throw error
    }
    let count = Double(events)
    round.dispatcherMicroseconds = dispatcher.cpuSeconds * 1e6 / count
    round.postgresMicroseconds = (ProcessUsage.treeSeconds(of: postmaster) - postgres) * 1e6 / count
    round.receiverMicroseconds = (nginx.cpuSeconds - receiver) * 1e6 / count
    round.peakMegabytes = Double(dispatcher.peakBytes) / 1_048_576
    try await judge(database, &round)
    try await dispatcher.stop()
    // A backend hands in its counts when it ends; the statistics of a live one may be a second old.
    let after = try await DatabaseCounters(database)
    round.walBytes = (after.walBytes - before.walBytes) / count
    round.deadRows = after.deadRows - before.deadRows
    round.transactions = after.transactions - before.transactions
  }

  private func waitUntilDrained(_ database: BenchDatabase, _ dispatcher: DispatcherProcess) async throws {
    let deadline = ContinuousClock.now + limit
    while true {
      if try await database.isDrained() { return }
      try await dispatcher.check()
      guard ContinuousClock.now < deadline else { throw BenchError("the drain is not done after \(limit)") }
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  /// That what was fast was also right; and how long it took by the database's clock, from the lease to the last outcome.
  private func judge(_ database: BenchDatabase, _ round: inout DrainReport.Round) async throws {
    let found = try await database.numbers(
      """
      SELECT extract(epoch FROM max(a.at) - (SELECT started_at FROM outbox.dispatcher)),
        count(*) FILTER (WHERE a.outcome = 'delivered'), count(*), count(DISTINCT a.event_id),
        (SELECT count(*) FROM outbox.delivery), (SELECT count(*) FROM outbox.dead_letter),
        (SELECT count(DISTINCT batch_id) FROM outbox.attempt), count(*) FILTER (WHERE a.batch_id IS NULL)
      FROM outbox.attempt a
      """
    )
    let expected = [Double(events), Double(events), Double(events), 0, 0]
    guard Array(found[1...5]) == expected else {
      throw BenchError("wrong: delivered, attempts, events, waiting, dead are \(found[1...5]), not \(expected)")
    }
    round.perSecond = Double(events) / found[0]
    round.batches = found[6]
    round.claimed = found[7]
  }
}
