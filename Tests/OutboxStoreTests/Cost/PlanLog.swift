import Foundation

/// Plans that auto_explain wrote to the server's log for one database.
struct PlanLog {
  private let database: Database
  private var seen = 0

  init(_ database: Database) { self.database = database }

  /// Those since the last call.
  mutating func next() throws -> [String] {
    // Lines that continue an entry begin with a tab.
    let log = try String(contentsOf: database.server.logFile, encoding: .utf8).replacing("\n\t", with: "\u{1}")
    let plans = log.split(separator: "\n")
      .filter { $0.hasPrefix("\(database.name)|LOG:  duration:") && $0.contains("plan:") }
      .map { String($0).replacing("\u{1}", with: "\n") }
    defer { seen = plans.count }
    return Array(plans.dropFirst(seen))
  }

  /// Pages that the top node of a plan touched.
  static func buffers(in plan: String) -> Int? {
    guard let line = plan.split(separator: "\n").first(where: { $0.contains("Buffers: shared") }) else { return nil }
    return line.matches(of: /(hit|read)=(\d+)/).reduce(0) { $0 + (Int($1.2) ?? 0) }
  }
}
