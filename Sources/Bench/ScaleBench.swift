import EmbeddedPostgres
import Foundation

/// More dispatchers for one log, and very many slow receivers for one dispatcher.
package struct ScaleBench: Bench {
  /// Dispatcher processes that empty a log together; the first is what the others are compared with.
  package var dispatchers = [1, 2, 4]
  package var events = 100_000
  /// Receivers that each take `receiverMilliseconds` for a request, one at a time each.
  package var receivers = [10, 100, 1000, 5000]
  package var receiverMilliseconds = 1000
  /// Events for each of them.
  package var each = 5
  package var runs = 5
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> ScaleReport {
    try allowManySockets()
    return try await withBenchScene { scene in
      try await scene.withNginx { nginx in
        var machine: Machine?
        var crews = dispatchers.map { ScaleReport.Crew(dispatchers: $0) }
        var crowds = receivers.map { ScaleReport.Crowd(receivers: $0) }
        for number in 1...runs {
          // Each size once before any comes twice: a machine that slows down in the middle shall hit all.
          for index in crews.indices {
            progress("round \(number) of \(runs): \(crews[index].dispatchers) dispatchers")
            let database = try await BenchDatabase.create("bench_\(number)_\(index)", on: scene.server)
            if machine == nil { machine = try await scene.machine(version, database, nginx: nginx) }
            crews[index].runs.append(try await drain(database, scene, nginx, crews[index].dispatchers))
            try await database.drop()
          }
          for index in crowds.indices {
            progress("round \(number) of \(runs): \(crowds[index].receivers) slow receivers")
            let database = try await BenchDatabase.create("bench_slow_\(number)_\(index)", on: scene.server)
            if machine == nil { machine = try await scene.machine(version, database, nginx: nginx) }
            crowds[index].runs.append(try await serve(database, scene, crowds[index].receivers))
            try await database.drop()
          }
        }
        guard let machine else { throw BenchError("there is nothing to measure") }
        return ScaleReport(bench: self, machine: machine, crews: crews, crowds: crowds)
      }
    }
  }

  // MARK: - More dispatchers

  private func drain(_ database: BenchDatabase, _ scene: BenchScene, _ nginx: Nginx, _ count: Int) async throws
    -> ScaleReport.Crew.Run
  {
    try await database.addEndpoint(nginx.url, maxInFlight: 64)
    try await database.preload(events: events, bodyBytes: bodyBytes)
    let postgres = scene.postgresSeconds
    return try await scene.withDispatchers(count, on: database) { dispatchers in
      try await wait(within: .seconds(600), every: .milliseconds(50), for: "the drain") {
        for dispatcher in dispatchers { try await dispatcher.check() }
        return try await database.isDrained()
      }
      let total = Double(events)
      let (ours, theirs) = (dispatchers.reduce(0) { $0 + $1.cpuSeconds }, scene.postgresSeconds - postgres)
      let peak = dispatchers.map(\.peakBytes).max() ?? 0
      // From the first lease on, whoever was the first to cut.
      let seconds = try await database.numbers(
        """
        SELECT extract(epoch FROM (SELECT max(a.at) FROM outbox.attempt a)
          - (SELECT min(d.started_at) FROM outbox.dispatcher d))
        """
      )[0]
      _ = try await database.requireDelivered(events)
      return ScaleReport.Crew.Run(
        perSecond: total / seconds,
        dispatcherMicroseconds: ours * 1e6 / total,
        postgresMicroseconds: theirs * 1e6 / total,
        peakMegabytes: Double(peak) / 1_048_576
      )
    }
  }

  // MARK: - Slow receivers

  private func serve(_ database: BenchDatabase, _ scene: BenchScene, _ count: Int) async throws
    -> ScaleReport.Crowd.Run
  {
    let pause = UInt64(receiverMilliseconds) * 1_000_000
    // A host of its own for every fifty, as many endpoints share a provider.
    let addresses = LoopbackServer.addresses((count + 49) / 50)
    let server = try LoopbackServer(addresses: addresses) { _, _ in
      .later(status: "204 No Content", at: monotonicNanoseconds() + pause)
    }
    server.start()
    defer { server.stop() }
    let urls = addresses.map { "http://\(dotted($0)):\(server.port)/hook" }
    try await database.addEndpoints(count, urls: urls, eventTypes: "'slow.' || n", maxInFlight: 1)
    let total = count * each
    for first in stride(from: 1, through: total, by: 1000) {
      try await database.insert(
        first...min(total, first + 999),
        type: "'slow.' || (1 + (n - 1) % \(count))",
        bodyBytes: bodyBytes
      )
    }
    try await database.session.withConnection { try $0.execute("ANALYZE; CHECKPOINT") }
    let postgres = scene.postgresSeconds
    // Nothing is returned untried because of a shutdown that did not wait.
    let options = DispatcherProcess.Options(maxInFlight: max(1000, count))
    return try await scene.withDispatchers(on: database, options) { dispatchers in
      let dispatcher = dispatchers[0]
      var most = 0
      try await wait(within: .seconds(600), every: .milliseconds(50), for: "the deliveries to slow receivers") {
        try await dispatcher.check()
        most = max(most, server.waiting)
        return try await database.isDrained()
      }
      let (ours, theirs) = (dispatcher.cpuSeconds, scene.postgresSeconds - postgres)
      let seconds = try await database.requireDelivered(total).seconds
      return ScaleReport.Crowd.Run(
        seconds: seconds,
        inFlight: Double(most),
        dispatcherMicroseconds: ours * 1e6 / Double(total),
        postgresMicroseconds: theirs * 1e6 / Double(total),
        peakMegabytes: Double(dispatcher.peakBytes) / 1_048_576
      )
    }
  }

  /// The receiver and the dispatcher, which inherits the limit, each have a socket for every receiver.
  private func allowManySockets() throws {
    let needed = rlim_t((receivers.max() ?? 0) + 500)
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    guard limit.rlim_cur < needed else { return }
    guard limit.rlim_max >= needed else {
      throw BenchError("\(needed) open files are needed, and at most \(limit.rlim_max) are allowed (ulimit -n)")
    }
    limit.rlim_cur = needed
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}

package struct ScaleReport: TabularReport {
  package struct Crew: Sendable, Codable {
    package struct Run: Sendable, Codable {
      package var perSecond: Double
      /// Of all dispatchers together, for each delivery.
      package var dispatcherMicroseconds: Double
      package var postgresMicroseconds: Double
      /// Of the largest.
      package var peakMegabytes: Double
    }
    package var dispatchers: Int
    package var runs: [Run] = []
  }

  package struct Crowd: Sendable, Codable {
    package struct Run: Sendable, Codable {
      package var seconds: Double
      /// At the receivers, at most.
      package var inFlight: Double
      package var dispatcherMicroseconds: Double
      package var postgresMicroseconds: Double
      package var peakMegabytes: Double
    }
    package var receivers: Int
    package var runs: [Run] = []
  }

  package var events: Int
  package var each: Int
  package var receiverMilliseconds: Int
  package var runs: Int
  package var machine: Machine
  package var crews: [Crew]
  package var crowds: [Crowd]

  init(bench: ScaleBench, machine: Machine, crews: [Crew], crowds: [Crowd]) {
    (events, each, receiverMilliseconds, runs) = (bench.events, bench.each, bench.receiverMilliseconds, bench.runs)
    (self.machine, self.crews, self.crowds) = (machine, crews, crowds)
  }

  package var title: String { "scale: more dispatchers, and many slow receivers" }

  /// What the receivers alone take.
  private var floorSeconds: Double { Double(each * receiverMilliseconds) / 1000 }

  package var parts: [ReportPart] {
    [
      .lines([
        "\(events) events to one endpoint (nginx), 64 in flight for each dispatcher; commits asynchronous (the dispatcher's default)",
        "\(runs) runs, median (lowest–highest); each event was delivered exactly once",
      ]),
      .table(crewTable),
      .lines([
        "receivers that take \(receiverMilliseconds) ms for a request, one at a time each; \(each) events for each; one dispatcher",
        "floor: what the receivers alone take, \(floorSeconds.text(1)) s",
      ]),
      .table(crowdTable),
    ]
  }

  private var crewTable: ReportTable {
    ReportTable(
      columns: [
        "dispatchers", "deliveries/s", "to \(crews.first?.dispatchers ?? 1)", "dispatchers' CPU, µs",
        "PostgreSQL CPU, µs",
        "peak of one, MiB",
      ],
      rows: crews.map { crew in
        func text(_ digits: Int, _ value: (Crew.Run) -> Double) -> String { Spread(crew.runs.map(value)).text(digits) }
        return [
          "\(crew.dispatchers)", text(0, \.perSecond),
          Spread(zip(crew.runs, crews[0].runs).map { $0.perSecond / $1.perSecond }).text(2),
          text(1, \.dispatcherMicroseconds), text(1, \.postgresMicroseconds), text(1, \.peakMegabytes),
        ]
      }
    )
  }

  private var crowdTable: ReportTable {
    ReportTable(
      columns: [
        "slow receivers", "in flight at most", "seconds", "to the floor", "dispatcher CPU, µs", "PostgreSQL CPU, µs",
        "dispatcher's peak, MiB (aim 64 at 1 000)",
      ],
      rows: crowds.map { crowd in
        func text(_ digits: Int, _ value: (Crowd.Run) -> Double) -> String {
          Spread(crowd.runs.map(value)).text(digits)
        }
        return [
          "\(crowd.receivers)", text(0, \.inFlight), text(2, \.seconds), text(2) { $0.seconds / floorSeconds },
          text(1, \.dispatcherMicroseconds), text(1, \.postgresMicroseconds), text(1, \.peakMegabytes),
        ]
      }
    )
  }
}
