import Foundation
import TestSupport
import Testing

/// What `martlet bench … --json` printed, or a part of it. Whoever asks for what is not there fails.
struct BenchReport {
  let values: [String: Any]

  /// - Parameter command: as it is typed after `martlet bench`.
  static func of(_ command: String) async throws -> BenchReport {
    let arguments = command.split(whereSeparator: \.isWhitespace).map(String.init)
    let run = try await MartletProcess.run(["bench"] + arguments + ["--json"])
    try #require(run.status == 0, "\(run.errors)")
    return BenchReport(
      values: try #require(JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any])
    )
  }

  func number(_ name: String) throws -> Double {
    try #require((values[name] as? NSNumber)?.doubleValue, "no number \(name)")
  }

  func part(_ name: String) throws -> BenchReport {
    BenchReport(values: try #require(values[name] as? [String: Any], "no \(name)"))
  }

  func list(_ name: String) throws -> [BenchReport] {
    try #require(values[name] as? [[String: Any]], "no list \(name)").map(BenchReport.init)
  }

  /// The only one of a list.
  func only(_ name: String) throws -> BenchReport {
    let list = try list(name)
    try #require(list.count == 1, "\(list.count) \(name)")
    return list[0]
  }

  func has(_ name: String) -> Bool { values[name] != nil }
}
