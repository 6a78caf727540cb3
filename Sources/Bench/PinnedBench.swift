import Foundation
import Postgres

/// What a transaction that stays open does to deliveries: steady publishing and one dispatcher, while a snapshot from before
/// the first event keeps every dead row version of this time from being removed. The first minutes against the last.
package struct PinnedBench: Bench {
  package var seconds = 3600
  /// Events a second, one a transaction.
  package var rate = 2000
  /// What publishes them.
  package var connections = 8
  package var bodyBytes = 500
  package var inFlight = 64
  package var synchronousCommit = false
  /// False: the same without the open transaction, to see what is the machine's doing.
  package var isPinned = true
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  /// The time measured is divided into so many slices, of which so many make a window, at the beginning and at the end.
  static let slices = 60
  static let slicesPerWindow = 5

  var sliceNanoseconds: UInt64 { UInt64(seconds) * 1_000_000_000 / UInt64(Self.slices) }
  /// A slice that is not measured comes first: caches fill, statements are prepared, the log begins to be cut.
  private var events: Int { (rate * seconds * (Self.slices + 1) + Self.slices - 1) / Self.slices }

  package func run() async throws -> PinnedReport {
    let times = EventTimes(count: events)
    let receiver = try LoopbackServer { request, began in
      times.arrived(request.number, at: began)
      return .now(status: "204 No Content")
    }
    receiver.start()
    defer { receiver.stop() }
    return try await withBenchScene(settings: StatementStatistics.settings) { scene in
      let database = try await BenchDatabase.create("bench", on: scene.server)
      try await StatementStatistics.prepare(database)
      try await database.addEndpoint("http://127.0.0.1:\(receiver.port)/hook", maxInFlight: inFlight)
      try await database.stampSubscriptions()
      let options = DispatcherProcess.Options(synchronousCommit: synchronousCommit)
      var report = try await scene.withDispatchers(on: database, options) { dispatchers in
        try await measure(scene, database, dispatchers[0], times)
      }
      try await prove(database, times, &report)
      return report
    }
  }

  private func measure(
    _ scene: BenchScene,
    _ database: BenchDatabase,
    _ dispatcher: DispatcherProcess,
    _ times: EventTimes
  ) async throws -> PinnedReport {
    let machine = try await scene.machine(version, database)
    let pin = SnapshotPin(database)
    let isOver = Flag()
    async let pinning: Void = isPinned ? pin.hold(until: isOver) : ()
    defer { isOver.set() }
    if isPinned { try await pin.waitUntilHeld(database) }

    let origin = monotonicNanoseconds() + 100_000_000
    async let publishing: Void = publish(database, times, origin: origin)
    var samples: [PinnedReport.Sample] = []
    for slice in 0...Self.slices {
      // From the end of the first, which is not measured.
      try await sleep(until: origin + UInt64(slice + 1) * sliceNanoseconds)
      try await dispatcher.check()
      samples.append(try await sample(scene, database, dispatcher))
      progress(progressLine(samples, times))
    }
    let pinnedAge = isPinned ? try await pin.age(database) : 0
    try await publishing
    try await wait(within: .seconds(120), for: "the last event's arrival") {
      try await dispatcher.check()
      return times.hasArrived(events - 1)
    }
    try await wait(within: .seconds(120), for: "the last outcome's record") { try await database.isDrained() }
    // Before the snapshot is let go, and a vacuum can remove what it kept.
    let tables = try await TableStatistics.all(database)
    isOver.set()
    try await pinning
    return PinnedReport(
      bench: self,
      machine: machine,
      origin: origin,
      pinnedTransactions: pinnedAge,
      peakMegabytes: Double(dispatcher.peakBytes) / 1_048_576,
      tables: tables,
      samples: samples,
      times: times.all
    )
  }

  /// Event `n` is the `n / connections`-th of connection `n % connections`, and due `n / rate` seconds after the origin.
  private func publish(_ database: BenchDatabase, _ times: EventTimes, origin: UInt64) async throws {
    let filler = String(repeating: "x", count: max(0, bodyBytes - 100))
    try await withThrowingTaskGroup { group in
      for connection in 0..<connections {
        let publisher = SteadyPublisher(
          session: database.anotherSession(),
          rate: Double(rate) / Double(connections),
          origin: origin + UInt64(connection) * 1_000_000_000 / UInt64(rate)
        )
        let count = (events - connection + connections - 1) / connections
        group.addTask {
          try await publisher.publish(count: count) { link, index in
            try link.publish(index * connections + connection, type: "order.created", filler: filler)
          } note: {
            times.published($0.number * connections + connection, $0)
          }
          await publisher.session.disconnect()
        }
      }
      try await group.waitForAll()
    }
  }

  private func sample(_ scene: BenchScene, _ database: BenchDatabase, _ dispatcher: DispatcherProcess) async throws
    -> PinnedReport.Sample
  {
    let numbers = try await database.numbers(
      """
      SELECT pg_current_wal_insert_lsn() - '0/0',
        (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = 'outbox')
      """
    )
    return PinnedReport.Sample(
      at: monotonicNanoseconds(),
      dispatcherSeconds: dispatcher.cpuSeconds,
      postgresSeconds: scene.postgresSeconds,
      walBytes: numbers[0],
      deadRows: numbers[1],
      megabytes: Double(dispatcher.residentBytes) / 1_048_576,
      statements: try await StatementStatistics(database)
    )
  }

  private func progressLine(_ samples: [PinnedReport.Sample], _ times: EventTimes) -> String {
    guard samples.count > 1 else { return "warmed up" }
    let (before, after) = (samples[samples.count - 2], samples[samples.count - 1])
    let cuts = (after.statements - before.statements)["cut"]
    return """
      slice \(samples.count - 1) of \(Self.slices): \((cuts.calls * 1e9 / Double(after.at - before.at)).text(0)) cuts/s, \
      \((cuts.buffers / cuts.calls).text(0)) buffers and \((cuts.milliseconds * 1000 / cuts.calls).text(0)) µs each; \
      \(after.deadRows.text(0)) dead rows
      """
  }

  /// Exactly what was committed has arrived, and the tables agree.
  private func prove(_ database: BenchDatabase, _ times: EventTimes, _ report: inout PinnedReport) async throws {
    let all = times.all
    let lost = zip(all.committed, all.arrived).count { $0 != 0 && $1 == 0 }
    let uncommitted = all.committed.count { $0 == 0 }
    guard lost == 0, uncommitted == 0, all.unknown == 0 else {
      throw BenchError(
        "\(lost) events were lost, \(uncommitted) not published, and \(all.unknown) arrivals are of none"
      )
    }
    progress("counting what became of \(events) events")
    report.conservation = try await database.conservation()
    guard report.conservation.missing == 0, report.conservation.delivered == events,
      report.conservation.pairs == events
    else { throw BenchError("of \(events) events the tables say: \(report.conservation)") }
  }

  private func sleep(until moment: UInt64) async throws {
    let now = monotonicNanoseconds()
    if moment > now { try await Task.sleep(for: .nanoseconds(Int64(moment - now))) }
  }
}

/// A transaction that has written something and whose snapshot is never given up: the oldest that vacuum has to respect.
private struct SnapshotPin {
  private let session: Session
  private static let name = "bench-pin"

  init(_ database: BenchDatabase) {
    session = Session(
      ConnectionConfiguration(connectionString: database.connectionString, applicationName: Self.name)
    )
  }

  func hold(until isOver: Flag) async throws {
    try await session.withConnection { connection in
      try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
      _ = try connection.query("SELECT pg_current_xact_id()")
      while !isOver.isSet { usleep(50_000) }
      // That the server still has it open is what the measurement rests on.
      _ = try connection.query("SELECT 1")
      try connection.execute("COMMIT")
    }
    await session.disconnect()
  }

  func waitUntilHeld(_ database: BenchDatabase) async throws {
    try await wait(within: .seconds(10), for: "the transaction that is to stay open") { try await age(database) >= 0 }
  }

  /// How many transactions ago its snapshot was taken; -1 if it has none.
  func age(_ database: BenchDatabase) async throws -> Double {
    try await database.numbers(
      """
      SELECT coalesce((SELECT age(backend_xmin) FROM pg_stat_activity
                       WHERE application_name = '\(Self.name)' AND state = 'idle in transaction'), -1)
      """
    )[0]
  }
}
