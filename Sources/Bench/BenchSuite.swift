/// All benchmarks, one after the other, and one document of them.
package struct BenchSuite: Sendable {
  private let version: String
  private let isQuick: Bool
  private let progress: @Sendable (String) -> Void

  package init(version: String, isQuick: Bool, progress: @escaping @Sendable (String) -> Void) {
    (self.version, self.isQuick, self.progress) = (version, isQuick, progress)
  }

  package static var names: [String] {
    var names: [String] = []
    for entry in BenchSuite(version: "", isQuick: true, progress: { _ in }).benches where !names.contains(entry.name) {
      names.append(entry.name)
    }
    return names
  }

  /// - Parameters:
  ///   - only: names; all if it is empty.
  ///   - write: takes the document, again and again as it grows.
  /// - Returns: how many failed. The document has their reasons.
  package func run(only: [String] = [], _ write: (String) throws -> Void) async throws -> Int {
    let chosen = benches.filter { only.isEmpty || only.contains($0.name) }
    var sections = [heading]
    var failed = 0
    for (number, entry) in chosen.enumerated() {
      progress("==> \(entry.name) (\(number + 1) of \(chosen.count))")
      do {
        sections.append(try await markdown(entry.bench))
      } catch let error where !(error is CancellationError) {
        failed += 1
        progress("\(entry.name) failed: \(error)")
        sections.append("## \(entry.name): failed\n\n```\n\(error)\n```\n")
      }
      try write(sections.joined(separator: "\n"))
    }
    return failed
  }

  private var heading: String {
    """
    # Martlet \(version): performance report

    `martlet bench all\(isQuick ? " --quick" : "")`: every figure beside its floor from the same run, on a throwaway PostgreSQL \
    with `fsync` on. Medians, with the lowest and the highest.\(isQuick ? " Small sizes: these are no figures." : "")

    """
  }

  /// Under a heading of its own, also where the report has none.
  private func markdown(_ bench: some Bench) async throws -> String {
    var bench = bench
    bench.progress = progress
    let markdown = try await bench.run().markdown
    let title = "\(type(of: bench))".replacing("Bench", with: "").lowercased()
    return markdown.hasPrefix("## ") ? markdown : "## \(title)\n\n\(markdown)"
  }

  private typealias Entry = (name: String, bench: any Bench)

  private var runs: Int { isQuick ? 2 : 5 }

  private var benches: [Entry] { cheap + growing + isolation }

  private var cheap: [Entry] {
    var drain = DrainBench(version: version)
    (drain.events, drain.runs) = (isQuick ? 20_000 : 200_000, runs)
    var cost = CostBench(version: version)
    (cost.events, cost.runs) = (isQuick ? 20_000 : 100_000, runs)
    var publish = PublishBench(version: version)
    publish.runs = runs
    if isQuick { (publish.clients, publish.seconds) = ([1, 4], 1) }
    var slow = LatencyBench(version: version)
    (slow.rate, slow.seconds) = (100, isQuick ? 5 : 60)
    var fast = slow
    fast.rate = 1000
    var idle = IdleBench(version: version)
    idle.seconds = isQuick ? 5 : 60
    return [
      ("drain", drain), ("cost", cost), ("publish", publish), ("latency", Repeated(slow, runs: runs)),
      ("latency", Repeated(fast, runs: runs)), ("idle", Repeated(idle, runs: runs)),
    ]
  }

  private var growing: [Entry] {
    var backlog = BacklogBench(version: version)
    backlog.runs = runs
    if isQuick {
      (backlog.log, backlog.waiting, backlog.dead) = ([100_000], [50_000], [100_000])
      backlog.deliveries = 10_000
    }
    var fanout = FanoutBench(version: version)
    if isQuick { (fanout.cuts, fanout.manyEndpoints, fanout.deliveries) = (5, 1000, 10_000) }
    var scale = ScaleBench(version: version)
    scale.runs = runs
    if isQuick { (scale.events, scale.receivers, scale.each) = (20_000, [10, 200], 2) }
    var pinned = PinnedBench(version: version)
    pinned.seconds = isQuick ? 30 : 1800
    if isQuick { pinned.rate = 500 }
    return [
      ("backlog", backlog), ("fanout", Repeated(fanout, runs: runs)), ("scale", scale), ("pinned", pinned),
    ]
  }

  private var isolation: [Entry] {
    var neighbours = NeighboursBench(version: version)
    neighbours.rounds = runs
    if isQuick { (neighbours.neighbours, neighbours.rate, neighbours.seconds) = (20, 20, 5) }
    var burst = BurstBench(version: version)
    (burst.events, burst.seconds) = (isQuick ? 20_000 : 300_000, isQuick ? 3 : 10)
    return [("neighbours", neighbours), ("burst", Repeated(burst, runs: runs))]
  }
}
