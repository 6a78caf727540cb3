import Foundation
import Testing

/// docs/simulation.md lists how the engine is broken on purpose, and who notices.
@Suite struct SimulationDocumentTests {
  @Test func everyMutationIsListedWithTheSuitesThatMustNotice() throws {
    let rows = try Repository.text("docs/simulation.md").split(separator: "\n").map(String.init)
    let header = try #require(rows.firstIndex { $0.hasPrefix("| patch |") })
    var listed: [String: Set<String>] = [:]
    for row in rows[(header + 2)...].prefix(while: { $0.hasPrefix("|") }) {
      let cells = row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      listed[cells[0].trimmingCharacters(in: ["`"]), default: []].insert(cells[2])
    }
    let folder = Repository.root.appendingPathComponent("Tests/Mutations")
    let patches = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "patch" }
    var expected: [String: Set<String>] = [:]
    for patch in patches {
      let text = try String(contentsOf: patch, encoding: .utf8)
      let catchers = try #require(text.firstMatch(of: /(?m)^Caught by: (.+)$/), "\(patch.lastPathComponent)")
      expected[patch.deletingPathExtension().lastPathComponent] = Set(catchers.1.split(separator: "|").map(String.init))
    }
    #expect(expected.count > 20)
    #expect(listed == expected)
  }
}
