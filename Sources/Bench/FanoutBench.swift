import EmbeddedPostgres
import Foundation
import Postgres

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
    try await withTemporaryDirectory { directory in
      let launcher = ChildLauncher(directory: directory)
      let nginx = try await Nginx.start(in: directory, launcher: launcher)
      let options = EmbeddedPostgres.Options(settings: BenchDatabase.settings, fsync: true)
      let report = try await withEmbeddedPostgres(options) { server in
        let (few, many) = try await measureMatching(server)
        let machine = Machine(
          version: version,
          postgres: server.version,
          nginx: nginx.version,
          settings: few.settings
        )
        return FanoutReport(
          events: events,
          matching: matching,
          cuts: cuts,
          deliveries: deliveries,
          machine: machine,
          few: few.matching,
          many: many.matching,
          fanouts: try await measureFanouts(server, nginx, launcher)
        )
      }
      try await nginx.stop()
      return report
    }
  }

  // MARK: - Endpoints that do not match

  private typealias Matched = (matching: FanoutReport.Matching, settings: [String: String])

  private func measureMatching(_ server: EmbeddedPostgres) async throws -> (few: Matched, many: Matched) {
    var databases: [CutDatabase] = []
    for count in [fewEndpoints, manyEndpoints] {
      progress("adding \(count) endpoints")
      let database = try await BenchDatabase.create("bench_\(count)", on: server)
      try await database.addEndpoints(matching, url: Self.nobody, eventTypes: "'order.created'")
      // Others of the same tenant: half of them named exactly, half by a prefix.
      try await database.addEndpoints(
        count - matching,
        url: Self.nobody,
        eventTypes: "CASE WHEN n % 2 = 0 THEN 'customer.' || n ELSE 'shop.s' || n || '.*' END"
      )
      databases.append(try await CutDatabase(database))
    }
    var figures: [[CutDatabase.Figures]] = databases.map { _ in [] }
    for round in 0..<(cuts + Self.unmeasured) {
      // In turns: a machine that slows down in the middle shall hit both.
      for (index, database) in databases.enumerated() {
        let cut = try await database.cut(events: events, pairs: events * matching, bodyBytes: bodyBytes)
        if round >= Self.unmeasured { figures[index].append(cut) }
      }
    }
    var matched: [Matched] = []
    for (index, count) in [fewEndpoints, manyEndpoints].enumerated() {
      let matching = FanoutReport.Matching(
        endpoints: count,
        milliseconds: Spread(figures[index].map(\.milliseconds)),
        buffers: Spread(figures[index].map(\.buffers))
      )
      matched.append((matching, try await databases[index].database.settings()))
      try await databases[index].database.drop()
    }
    return (matched[0], matched[1])
  }

  /// A port on which nothing listens: here nothing is sent.
  private static let nobody = "http://127.0.0.1:9/hook"
  /// Cuts that fill caches and prepare statements.
  private static let unmeasured = 3

  // MARK: - Endpoints that match

  private func measureFanouts(_ server: EmbeddedPostgres, _ nginx: Nginx, _ launcher: ChildLauncher) async throws
    -> [FanoutReport.Fanout]
  {
    var result: [FanoutReport.Fanout] = []
    for count in fanouts {
      progress("one event to \(count) endpoints")
      let database = try await BenchDatabase.create("bench_to_\(count)", on: server)
      try await database.addEndpoints(count, url: nginx.url, eventTypes: "'order.created'")
      let cutDatabase = try await CutDatabase(database)
      var figures: [CutDatabase.Figures] = []
      for round in 0..<(cuts + Self.unmeasured) {
        let cut = try await cutDatabase.cut(events: 1, pairs: count, bodyBytes: bodyBytes)
        if round >= Self.unmeasured { figures.append(cut) }
      }
      try await cutDatabase.forget()
      var fanout = FanoutReport.Fanout(
        endpoints: count,
        cutMilliseconds: Spread(figures.map(\.milliseconds)),
        cutBuffers: Spread(figures.map(\.buffers))
      )
      if deliveries > 0 { fanout.delivery = try await deliver(to: count, database, server, nginx, launcher) }
      result.append(fanout)
      try await database.drop()
    }
    return result
  }

  private func deliver(
    to count: Int,
    _ database: BenchDatabase,
    _ server: EmbeddedPostgres,
    _ nginx: Nginx,
    _ launcher: ChildLauncher
  ) async throws -> FanoutReport.Delivery {
    guard let postmaster = server.pid else { throw BenchError("PostgreSQL is not running") }
    let events = max(1, deliveries / count)
    try await database.preload(events: events, bodyBytes: bodyBytes)
    let (postgres, receiver) = (ProcessUsage.treeSeconds(of: postmaster), nginx.cpuSeconds)
    let dispatcher = try await DispatcherProcess.start(database, launcher: launcher)
    var delivery = FanoutReport.Delivery()
    let total = Double(events * count)
    do {
      let deadline = ContinuousClock.now + .seconds(600)
      while try await !database.isDrained() {
        try await dispatcher.check()
        guard ContinuousClock.now < deadline else { throw BenchError("not delivered within 600 s") }
        try await Task.sleep(for: .milliseconds(20))
      }
      delivery.dispatcherMicroseconds = dispatcher.cpuSeconds * 1e6 / total
      delivery.postgresMicroseconds = (ProcessUsage.treeSeconds(of: postmaster) - postgres) * 1e6 / total
      delivery.receiverMicroseconds = (nginx.cpuSeconds - receiver) * 1e6 / total
      delivery.peakMegabytes = Double(dispatcher.peakBytes) / 1_048_576
      let found = try await database.numbers(
        """
        SELECT extract(epoch FROM max(a.at) - (SELECT max(started_at) FROM outbox.dispatcher)),
          count(*) FILTER (WHERE a.outcome = 'delivered'), count(*), count(*) FILTER (WHERE a.batch_id IS NULL)
        FROM outbox.attempt a
        """
      )
      guard found[1] == total, found[2] == total else {
        throw BenchError("wrong: \(found[1]) delivered in \(found[2]) attempts, not \(total)")
      }
      delivery.perSecond = total / found[0]
      delivery.claimed = found[3]
    } catch {
      try? await dispatcher.stop()
      throw error
    }
    try await dispatcher.stop()
    return delivery
  }
}

/// A database whose log the benchmark cuts itself, as a dispatcher would.
private struct CutDatabase {
  struct Figures {
    var milliseconds: Double
    /// Pages looked at, of the cut and all that it calls.
    var buffers: Double
  }

  let database: BenchDatabase
  private let dispatcher: Double

  init(_ database: BenchDatabase) async throws {
    self.database = database
    try await database.session.withConnection { connection in
      // Nobody renews the lease, and the cuts wait for no disk, as a dispatcher's do not.
      try connection.execute("SET synchronous_commit = off; ANALYZE")
    }
    dispatcher = try await database.numbers("SELECT outbox.register('bench', '', 0, '', '1 day')")[0]
  }

  /// Publishes, cuts, and says what the server spent on it.
  func cut(events: Int, pairs: Int, bodyBytes: Int) async throws -> Figures {
    try await database.insert(1...events, bodyBytes: bodyBytes)
    return try await database.session.withConnection { connection in
      let text = try connection.queryText(
        """
        EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)
        SELECT * FROM outbox.cut(\(Int(dispatcher)), \(events + 1), \(max(2000, pairs)), \(max(1000, pairs)), 16777216)
        """
      ).rows.compactMap(\.first?.self).joined(separator: "\n")
      guard let plan = try JSONDecoder().decode([Explained].self, from: Data(text.utf8)).first else {
        throw BenchError("no plan")
      }
      let handed = try connection.queryText(
        "SELECT cardinality(event_ids)::text FROM outbox.batch ORDER BY id DESC LIMIT 1"
      ).rows.first?[0]
      guard handed == "\(pairs)" else { throw BenchError("the cut gave \(handed ?? "no") pairs, not \(pairs)") }
      return Figures(milliseconds: plan.executionTime, buffers: Double(plan.plan.hit + plan.plan.read))
    }
  }

  /// Leaves the database as if nothing had been published yet.
  func forget() async throws {
    try await database.session.withConnection {
      try $0.execute("DELETE FROM outbox.batch; DELETE FROM outbox.dispatcher; RESET synchronous_commit")
    }
  }

  private struct Explained: Decodable {
    var plan: Plan
    var executionTime: Double

    enum CodingKeys: String, CodingKey {
      case plan = "Plan"
      case executionTime = "Execution Time"
    }

    struct Plan: Decodable {
      var hit: Int
      var read: Int

      enum CodingKeys: String, CodingKey {
        case hit = "Shared Hit Blocks"
        case read = "Shared Read Blocks"
      }
    }
  }
}

package struct FanoutReport: BenchReport {
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
