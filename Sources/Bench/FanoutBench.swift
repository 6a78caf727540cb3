import Foundation

/// What matching events with endpoints costs: of a cut by the endpoints that do not match, and of a delivery by the
/// number of those that do.
package struct FanoutBench: Bench {
  /// Events in a cut that is matched.
  package var events = 500
  /// Endpoints that match each of them.
  package var matching = 3
  package var fewEndpoints = 10
  package var manyEndpoints = 10_000
  /// Cuts of each kind; medians are printed.
  package var cuts = 20
  /// To how many endpoints one event goes.
  package var fanouts = [1, 10, 1000]
  /// Deliveries that a dispatcher makes for each of them; 0: only cuts are measured.
  package var deliveries = 50_000
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> FanoutReport {
    try await withBenchScene { scene in
      try await scene.withNginx { nginx in
        let (few, many, machine) = try await measureMatching(scene, nginx)
        return FanoutReport(
          events: events,
          matching: matching,
          cuts: cuts,
          deliveries: deliveries,
          machine: machine,
          few: few,
          many: many,
          fanouts: try await measureFanouts(scene, nginx)
        )
      }
    }
  }

  // MARK: - Endpoints that do not match

  private func measureMatching(_ scene: BenchScene, _ nginx: Nginx) async throws
    -> (few: FanoutReport.Matching, many: FanoutReport.Matching, Machine)
  {
    var databases: [StepCaller] = []
    var machine: Machine?
    for count in [fewEndpoints, manyEndpoints] {
      progress("adding \(count) endpoints")
      let database = try await BenchDatabase.create("bench_\(count)", on: scene.server)
      try await database.addEndpoints(matching, urls: [Self.nobody], eventTypes: "'order.created'")
      // Others of the same tenant: half of them named exactly, half by a prefix.
      try await database.addEndpoints(
        count - matching,
        urls: [Self.nobody],
        eventTypes: "CASE WHEN n % 2 = 0 THEN 'customer.' || n ELSE 'shop.s' || n || '.*' END"
      )
      if machine == nil { machine = try await scene.machine(version, database, nginx: nginx) }
      databases.append(try await StepCaller(database))
    }
    var figures: [[StepCaller.Cost]] = databases.map { _ in [] }
    for round in 0..<(cuts + Self.unmeasured) {
      // In turns: a machine that slows down in the middle shall hit both.
      for (index, database) in databases.enumerated() {
        try await database.database.insert(1...events, bodyBytes: bodyBytes)
        let cut = try await database.cut(events: events + 1, pairs: events * matching)
        if round >= Self.unmeasured { figures[index].append(cut) }
      }
    }
    var matched: [FanoutReport.Matching] = []
    for (index, count) in [fewEndpoints, manyEndpoints].enumerated() {
      matched.append(
        FanoutReport.Matching(
          endpoints: count,
          milliseconds: Spread(figures[index].map(\.milliseconds)),
          buffers: Spread(figures[index].map(\.buffers))
        )
      )
      try await databases[index].database.drop()
    }
    guard let machine else { throw BenchError("there is nothing to measure") }
    return (matched[0], matched[1], machine)
  }

  /// A port on which nothing listens: here nothing is sent.
  private static let nobody = "http://127.0.0.1:9/hook"
  /// Cuts that fill caches and prepare statements.
  private static let unmeasured = 3

  // MARK: - Endpoints that match

  private func measureFanouts(_ scene: BenchScene, _ nginx: Nginx) async throws -> [FanoutReport.Fanout] {
    var result: [FanoutReport.Fanout] = []
    for count in fanouts {
      progress("one event to \(count) endpoints")
      let database = try await BenchDatabase.create("bench_to_\(count)", on: scene.server)
      try await database.addEndpoints(count, urls: [nginx.url], eventTypes: "'order.created'")
      let caller = try await StepCaller(database)
      var figures: [StepCaller.Cost] = []
      for round in 0..<(cuts + Self.unmeasured) {
        try await database.insert(1...1, bodyBytes: bodyBytes)
        let cut = try await caller.cut(events: 2, pairs: count)
        _ = try await caller.record()
        if round >= Self.unmeasured { figures.append(cut) }
      }
      try await caller.end()
      // The dispatcher's deliveries alone are counted from here on.
      try await database.session.withConnection {
        try $0.execute("TRUNCATE outbox.attempt_single, outbox.attempt_packed")
      }
      var fanout = FanoutReport.Fanout(
        endpoints: count,
        cutMilliseconds: Spread(figures.map(\.milliseconds)),
        cutBuffers: Spread(figures.map(\.buffers))
      )
      if deliveries > 0 { fanout.delivery = try await deliver(to: count, database, scene, nginx) }
      result.append(fanout)
      try await database.drop()
    }
    return result
  }

  private func deliver(to count: Int, _ database: BenchDatabase, _ scene: BenchScene, _ nginx: Nginx) async throws
    -> FanoutReport.Delivery
  {
    let events = max(1, deliveries / count)
    try await database.preload(events: events, bodyBytes: bodyBytes)
    let (postgres, receiver) = (scene.postgresSeconds, nginx.cpuSeconds)
    let total = Double(events * count)
    return try await scene.withDispatchers(on: database) { dispatchers in
      let dispatcher = dispatchers[0]
      try await wait(within: .seconds(600), for: "the deliveries") {
        try await dispatcher.check()
        return try await database.isDrained()
      }
      var delivery = FanoutReport.Delivery()
      delivery.dispatcherMicroseconds = dispatcher.cpuSeconds * 1e6 / total
      delivery.postgresMicroseconds = (scene.postgresSeconds - postgres) * 1e6 / total
      delivery.receiverMicroseconds = (nginx.cpuSeconds - receiver) * 1e6 / total
      delivery.peakMegabytes = Double(dispatcher.peakBytes) / 1_048_576
      let drained = try await database.requireDelivered(Int(total))
      delivery.perSecond = total / drained.seconds
      delivery.claimed = drained.claimed
      return delivery
    }
  }
}

package struct FanoutReport: FigureReport {
  package struct Matching: Sendable, Codable {
    package var endpoints: Int
    package var milliseconds: Spread
    package var buffers: Spread
  }

  package struct Delivery: Sendable, Codable {
    package var perSecond = 0.0
    package var dispatcherMicroseconds = 0.0
    package var postgresMicroseconds = 0.0
    package var receiverMicroseconds = 0.0
    /// Deliveries that did not go straight out but were parked and claimed.
    package var claimed = 0.0
    package var peakMegabytes = 0.0
  }

  package struct Fanout: Sendable, Codable {
    package var endpoints: Int
    package var cutMilliseconds: Spread
    package var cutBuffers: Spread
    package var delivery: Delivery?
  }

  package var events: Int
  package var matching: Int
  package var cuts: Int
  package var deliveries: Int
  package var machine: Machine
  package var few: Matching
  package var many: Matching
  package var fanouts: [Fanout]

  package var timeRatio: Double { many.milliseconds.median / few.milliseconds.median }
  package var bufferRatio: Double { many.buffers.median / few.buffers.median }

  package var subject: String {
    "fanout: a cut of \(events) events of \(few.endpoints) and of \(many.endpoints) endpoints, \(matching) of which match; one event to many; commits asynchronous"
  }

  package var figures: [Figure] {
    [
      Figure("a cut of \(few.endpoints) endpoints", "ms", 2, few.milliseconds.median),
      Figure("a cut of \(many.endpoints) endpoints", "ms", 2, many.milliseconds.median),
      Figure("  ratio of time", "", 2, timeRatio),
      Figure("  ratio of buffers", "", 3, bufferRatio),
    ]
      + fanouts.flatMap { fanout in
        let count = Double(fanout.endpoints)
        var figures = [
          Figure(
            "one event to \(fanout.endpoints): cut",
            "µs a delivery",
            1,
            fanout.cutMilliseconds.median * 1000 / count
          ),
          Figure("  buffers", "a delivery", 1, fanout.cutBuffers.median / count),
        ]
        if let delivery = fanout.delivery {
          figures += [
            Figure("  deliveries", "/s", 0, delivery.perSecond),
            Figure("  PostgreSQL CPU", "µs a delivery", 1, delivery.postgresMicroseconds),
            Figure("  dispatcher CPU", "µs a delivery", 1, delivery.dispatcherMicroseconds),
            Figure("  parked", "deliveries", 0, delivery.claimed),
          ]
        }
        return figures
      }
  }

  package var text: String {
    var lines = [
      machine.text,
      "fanout      \(cuts) cuts of each kind, by one caller: median (lowest–highest) of the server's time and buffers",
      "",
      "a cut of \(events) events, each for \(matching) endpoints",
    ]
    for matching in [few, many] {
      lines.append(
        column("  of \(matching.endpoints)")
          + "\(matching.milliseconds.text(2)) ms, \(matching.buffers.text(0)) buffers"
      )
    }
    lines.append(column("  ratio") + "\(timeRatio.text(2)) of time, \(bufferRatio.text(2)) of buffers")
    for fanout in fanouts {
      let count = Double(fanout.endpoints)
      lines += [
        "",
        "one event to \(fanout.endpoints) endpoint\(fanout.endpoints == 1 ? "" : "s")",
        column("  its cut") + "\(fanout.cutMilliseconds.text(2)) ms, \(fanout.cutBuffers.text(0)) buffers",
        column("  for each delivery")
          + "\((fanout.cutMilliseconds.median * 1000 / count).text(1)) µs, \((fanout.cutBuffers.median / count).text(1)) buffers",
      ]
      guard let delivery = fanout.delivery else { continue }
      lines += [
        column("  \(deliveries) deliveries in all")
          + "\(delivery.perSecond.text(0))/s; PostgreSQL \(delivery.postgresMicroseconds.text(1)), "
          + "dispatcher \(delivery.dispatcherMicroseconds.text(1)), receiver \(delivery.receiverMicroseconds.text(1)) µs each; "
          + "\(delivery.claimed.text(0)) parked; peak \(delivery.peakMegabytes.text(0)) MiB"
      ]
    }
    return lines.joined(separator: "\n")
  }

  private func column(_ text: String) -> String { text.padding(toLength: 28, withPad: " ", startingAt: 0) }
}
