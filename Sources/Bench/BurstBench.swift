import EmbeddedPostgres
import Foundation
import Postgres

/// One endpoint gets very many events in one transaction; how long do those of another take, before, meanwhile and after?
package struct BurstBench: Bench {
  package var events = 100_000
  /// Events a second for the other endpoint.
  package var rate = 20
  /// What the burst's endpoint takes, a second; nil: as many as nginx does.
  package var receiverRate: Int?
  /// How long the other is watched before the burst, and after its cut.
  package var seconds = 10
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> BurstReport {
    try await withTemporaryDirectory { directory in
      let launcher = ChildLauncher(directory: directory)
      let arrivals = try ArrivalListener()
      arrivals.start()
      defer { arrivals.stop() }
      let target = try await target(directory, launcher)
      let options = EmbeddedPostgres.Options(settings: BenchDatabase.settings, fsync: true)
      let report = try await withEmbeddedPostgres(options) { server in
        try await run(server, launcher, arrivals, target)
      }
      target.slow?.stop()
      try await target.nginx?.stop()
      return report
    }
  }

  private struct Target {
    var url: String
    var nginx: Nginx?
    var slow: LoopbackServer?
  }

  private func target(_ directory: URL, _ launcher: ChildLauncher) async throws -> Target {
    guard let receiverRate else {
      let nginx = try await Nginx.start(in: directory, launcher: launcher)
      return Target(url: nginx.url, nginx: nginx)
    }
    let slow = try LoopbackServer.taking(receiverRate)
    slow.start()
    return Target(url: "http://127.0.0.1:\(slow.port)/hook", slow: slow)
  }

  private func run(
    _ server: EmbeddedPostgres,
    _ launcher: ChildLauncher,
    _ arrivals: ArrivalListener,
    _ target: Target
  ) async throws -> BurstReport {
    let database = try await BenchDatabase.create("bench", on: server)
    try await database.addEndpoint(target.url, eventTypes: ["burst.event"])
    try await database.addEndpoint(arrivals.url, eventTypes: ["other.event"])
    try await database.session.withConnection { _ = try $0.query("SELECT outbox.stamp_subscriptions()") }
    let dispatcher = try await DispatcherProcess.start(
      database,
      .init(graceSeconds: 3),
      launcher: launcher
    )
    var report: BurstReport
    do {
      report = try await measure(database, server, dispatcher, arrivals, nginx: target.nginx?.version)
    } catch {
      try? await dispatcher.stop()
      throw error
    }
    try await dispatcher.stop()
    report.conservation = try await database.conservation()
    let published = try await database.numbers("SELECT count(*) FROM outbox.event").first.map { Int($0) }
    guard report.conservation.missing == 0, report.conservation.pairs == published else {
      throw BenchError("lost: of \(published ?? 0) events \(report.conservation)")
    }
    return report
  }

  private func measure(
    _ database: BenchDatabase,
    _ server: EmbeddedPostgres,
    _ dispatcher: DispatcherProcess,
    _ arrivals: ArrivalListener,
    nginx: String?
  ) async throws -> BurstReport {
    guard let postmaster = server.pid else { throw BenchError("PostgreSQL is not running") }
    let filler = String(repeating: "x", count: max(0, bodyBytes - 100))
    let isOver = Flag()
    let other = database.anotherSession()
    async let steady = SteadyPublisher(session: other, rate: rate)
      .publish(first: 0, isOver: { isOver.isSet }, { try $0.publish($1, type: "other.event", filler: filler) })
    defer { isOver.set() }

    // The first second wakes everything up and is not counted.
    try await Task.sleep(for: .seconds(1))
    let began = monotonicNanoseconds()
    try await Task.sleep(for: .seconds(seconds))
    let quietPeak = dispatcher.peakBytes
    progress("publishing \(events) events in one transaction")
    let writing = monotonicNanoseconds()
    let transaction = try await publishBurst(database, filler: filler)
    let committed = monotonicNanoseconds()
    progress("committed after \((Double(committed - writing) / 1e9).text(1)) s; cutting")
    let cpu = (dispatcher.cpuSeconds, ProcessUsage.treeSeconds(of: postmaster))
    try await waitUntilPassed(transaction, database, dispatcher)
    let passed = monotonicNanoseconds()
    let cpuAfter = (dispatcher.cpuSeconds, ProcessUsage.treeSeconds(of: postmaster))
    progress("cut after \((Double(passed - committed) / 1e9).text(1)) s")
    try await Task.sleep(for: .seconds(seconds))
    isOver.set()
    let published = try await steady
    await other.disconnect()
    try await waitForArrival(of: published, arrivals, dispatcher)

    let all = arrivals.all
    func latencies(_ isMeant: (_ committed: UInt64, _ arrived: UInt64) -> Bool) -> [Double] {
      published.compactMap { event in
        guard let arrived = all[event.number], isMeant(event.committed, arrived) else { return nil }
        return (Double(arrived) - Double(event.committed)) / 1e6
      }
    }
    let after = latencies { sent, _ in sent >= passed }
    let cutSeconds = Double(passed - committed) / 1e9
    return BurstReport(
      events: events,
      rate: rate,
      receiverRate: receiverRate,
      machine: Machine(
        version: version,
        postgres: server.version,
        nginx: nginx,
        settings: try await database.settings()
      ),
      writeSeconds: Double(committed - writing) / 1e9,
      cutSeconds: cutSeconds,
      parked: try await database.numbers("SELECT count(*) FROM outbox.delivery WHERE endpoint_id = 1")[0],
      before: Distribution(latencies { sent, arrived in sent >= began && arrived < writing }),
      whileWritten: Distribution(latencies { sent, arrived in sent >= writing && arrived < committed }),
      // What was committed just before the burst, too, may come behind it.
      whileCut: Distribution(latencies { sent, arrived in sent < passed && arrived >= committed }),
      next: after.first ?? .nan,
      after: Distribution(after),
      dispatcherShareWhileCut: (cpuAfter.0 - cpu.0) / cutSeconds,
      postgresShareWhileCut: (cpuAfter.1 - cpu.1) / cutSeconds,
      quietPeakMegabytes: Double(quietPeak) / 1_048_576,
      peakMegabytes: Double(dispatcher.peakBytes) / 1_048_576
    )
  }

  /// Returns the transaction's id.
  private func publishBurst(_ database: BenchDatabase, filler: String) async throws -> String {
    try await database.session.withConnection { connection in
      try connection.execute("BEGIN")
      _ = try connection.query(
        """
        INSERT INTO outbox.event (type, payload)
        SELECT 'burst.event', jsonb_build_object('n', n, 'note', $2) FROM generate_series(1, $1) n
        """,
        [.int4(Int32(clamping: events)), .text(filler)]
      )
      let transaction = try connection.queryText("SELECT pg_current_xact_id()::text").rows[0][0] ?? ""
      try connection.execute("COMMIT")
      return transaction
    }
  }

  /// Until the position has left the burst behind: all of it is cut.
  private func waitUntilPassed(_ transaction: String, _ database: BenchDatabase, _ dispatcher: DispatcherProcess)
    async throws
  {
    let deadline = ContinuousClock.now + .seconds(3600)
    while true {
      let passed = try await database.numbers(
        """
        SELECT pg_visible_in_snapshot('\(transaction)'::xid8, p.done)::int
        FROM outbox.position p ORDER BY p.id DESC LIMIT 1
        """
      )
      if passed.first == 1 { return }
      try await dispatcher.check()
      guard ContinuousClock.now < deadline else { throw BenchError("the burst was not cut within an hour") }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  private func waitForArrival(of events: [Published], _ arrivals: ArrivalListener, _ dispatcher: DispatcherProcess)
    async throws
  {
    let deadline = ContinuousClock.now + .seconds(600)
    while let last = events.last, arrivals.arrival(of: last.number) == nil {
      try await dispatcher.check()
      guard ContinuousClock.now < deadline else { throw BenchError("the other's events do not arrive") }
      try await Task.sleep(for: .milliseconds(20))
    }
    let all = arrivals.all
    let missing = events.count { all[$0.number] == nil }
    guard missing == 0 else { throw BenchError("\(missing) of the other's events did not arrive") }
  }
}

package struct BurstReport: BenchReport {
  package var events: Int
  package var rate: Int
  package var receiverRate: Int?
  package var machine: Machine
  package var writeSeconds: Double
  /// From the burst's commit until the last of it was cut.
  package var cutSeconds: Double
  /// Of the burst, what waited in the database in the end.
  package var parked: Double
  /// Of the other endpoint, commit to receipt.
  package var before: Distribution
  package var whileWritten: Distribution
  package var whileCut: Distribution
  /// Of the first event committed after the burst's cut; milliseconds.
  package var next: Double
  package var after: Distribution
  /// Shares of one core.
  package var dispatcherShareWhileCut: Double
  package var postgresShareWhileCut: Double
  package var quietPeakMegabytes: Double
  package var peakMegabytes: Double
  package var conservation = Conservation(pairs: 0, delivered: 0, waiting: 0, inFlight: 0, dead: 0, missing: 0)

  package var text: String {
    """
    \(machine.text)
    burst       \(events) events in one transaction to an endpoint that takes \
    \(receiverRate.map { "\($0)/s" } ?? "all it gets"); another gets \(rate)/s

    the burst               written in \(writeSeconds.text(1)) s, cut in \(cutSeconds.text(1)) s, \
    then \(parked.text(0)) of it parked
    the other, before it    \(before.text)
      while it is written   \(whileWritten.text)
      while it is cut       \(whileCut.text)
      the next event after  \(next.text(2)) ms
      all after             \(after.text)
    while it is cut         dispatcher \((dispatcherShareWhileCut * 100).text(0)) %, \
    PostgreSQL \((postgresShareWhileCut * 100).text(0)) % of a core
    dispatcher's memory     peak \(quietPeakMegabytes.text(1)) MiB before, \(peakMegabytes.text(1)) MiB in all
    lost                    0 of \(conservation.pairs): \(conservation.delivered) delivered, \(conservation.waiting) wait
    """
  }
}
