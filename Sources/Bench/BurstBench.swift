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
    let arrivals = try ArrivalListener()
    arrivals.start()
    defer { arrivals.stop() }
    return try await withBenchScene { scene in
      guard let receiverRate else {
        return try await scene.withNginx { try await run(scene, arrivals, url: $0.url, nginx: $0) }
      }
      let slow = try LoopbackServer.taking(receiverRate)
      slow.start()
      defer { slow.stop() }
      return try await run(scene, arrivals, url: "http://127.0.0.1:\(slow.port)/hook", nginx: nil)
    }
  }

  private func run(_ scene: BenchScene, _ arrivals: ArrivalListener, url: String, nginx: Nginx?) async throws
    -> BurstReport
  {
    let database = try await BenchDatabase.create("bench", on: scene.server)
    try await database.addEndpoint(url, eventTypes: ["burst.event"])
    try await database.addEndpoint(arrivals.url, eventTypes: ["other.event"])
    try await database.stampSubscriptions()
    var report = try await scene.withDispatchers(on: database, .init(graceSeconds: 3)) {
      try await measure(scene, database, $0[0], arrivals, nginx)
    }
    report.conservation = try await database.requireNothingMissing()
    return report
  }

  private func measure(
    _ scene: BenchScene,
    _ database: BenchDatabase,
    _ dispatcher: DispatcherProcess,
    _ arrivals: ArrivalListener,
    _ nginx: Nginx?
  ) async throws -> BurstReport {
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
    let cpu = (dispatcher.cpuSeconds, scene.postgresSeconds)
    try await waitUntilPassed(transaction, database, dispatcher)
    let passed = monotonicNanoseconds()
    let cpuAfter = (dispatcher.cpuSeconds, scene.postgresSeconds)
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
      machine: try await scene.machine(version, database, nginx: nginx),
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
    try await wait(within: .seconds(3600), every: .milliseconds(10), for: "the cut of the burst") {
      try await dispatcher.check()
      return try await database.numbers(
        """
        SELECT pg_visible_in_snapshot('\(transaction)'::xid8, p.done)::int
        FROM outbox.position p ORDER BY p.id DESC LIMIT 1
        """
      ).first == 1
    }
  }

  private func waitForArrival(of events: [Published], _ arrivals: ArrivalListener, _ dispatcher: DispatcherProcess)
    async throws
  {
    try await wait(within: .seconds(600), for: "the arrival of the other's events") {
      try await dispatcher.check()
      return events.last.map { arrivals.arrival(of: $0.number) != nil } ?? true
    }
    let all = arrivals.all
    let missing = events.count { all[$0.number] == nil }
    guard missing == 0 else { throw BenchError("\(missing) of the other's events did not arrive") }
  }
}

package struct BurstReport: FigureReport {
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

  package var subject: String {
    let taken = receiverRate.map { "\($0)/s" } ?? "all it gets"
    return
      "burst: \(events) events in one transaction to an endpoint that takes \(taken); another gets \(rate)/s; commits asynchronous"
  }

  package var figures: [Figure] {
    [
      Figure("the burst's cut", "s", 2, cutSeconds),
      Figure("of it parked afterwards", "deliveries", 0, parked),
      Figure("the other before it, p99", "ms", 2, before.p99),
      Figure("the other while it is cut, longest", "ms", 1, whileCut.longest),
      Figure("the next event after", "ms", 2, next),
      Figure("the other after it, p99", "ms", 2, after.p99),
      Figure("dispatcher's peak memory", "MiB", 1, peakMegabytes),
    ]
  }

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
