import Foundation
import Testing

/// docs/security.md promises tests by name. They must be there, or the promise is empty.
@Suite struct SecurityDocumentTests {
  /// The names of all functions with `@Test`.
  private static func tests() throws -> Set<String> {
    let folder = Repository.root.appendingPathComponent("Tests")
    let files =
      FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
    var names: Set<String> = []
    for file in files where file.pathExtension == "swift" {
      let source = try String(contentsOf: file, encoding: .utf8)
      // From the attribute to the first function after it: arguments may lie between.
      for part in source.components(separatedBy: "@Test").dropFirst() {
        if let name = part.firstMatch(of: /func (\w+)/) { names.insert(String(name.1)) }
      }
    }
    return names
  }

  @Test func everyTestNamedInSecurityDocumentExists() throws {
    let rows = try Repository.text("docs/security.md").split(separator: "\n").filter { $0.hasPrefix("|") }
    let tests = try Self.tests()
    #expect(tests.count > 500 && tests.contains("everyTestNamedInSecurityDocumentExists"))
    var named: Set<String> = []
    let header = try #require(rows.firstIndex { $0.hasSuffix("| shown by |") })
    for row in rows[(header + 2)...].prefix(while: { $0.split(separator: "|").count == 3 }) {
      let cell = row.split(separator: "|")[2]
      let names = cell.matches(of: /`(\w+)`/).map { String($0.1) }
      #expect(!names.isEmpty, "a threat without a test: \(row)")
      named.formUnion(names)
    }
    #expect(named.count > 60)
    #expect(named.subtracting(tests).sorted() == [])
    let elsewhere = try Repository.text("docs/security.md").matches(of: /\(`(\w+)`\)/).map { String($0.1) }
    #expect(!elsewhere.isEmpty && Set(elsewhere).isSubset(of: tests))
  }

  /// Whoever adds a dependency has to write it down here, and in docs/security.md.
  @Test func dependenciesAreTheSixThatTheDocumentSpeaksOf() throws {
    let urls = try Repository.text("Package.swift").matches(of: /\.package\(url: "([^"]+)"/).map { String($0.1) }
    #expect(
      urls.sorted()
        == [
          "https://github.com/apple/swift-argument-parser", "https://github.com/apple/swift-collections",
          "https://github.com/apple/swift-crypto", "https://github.com/apple/swift-log",
          "https://github.com/swhitty/FlyingFox", "https://github.com/swift-server/swift-service-lifecycle",
        ].sorted()
    )
    #expect(try Repository.text("docs/security.md").contains("six dependencies"))
  }
}
