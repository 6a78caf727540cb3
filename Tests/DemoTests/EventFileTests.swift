import Foundation
import Testing

@testable import Demo

struct EventFileTests {
  @Test func sampleSetIsReadWhole() throws {
    let sample = try EventFile.sample()
    #expect(sample.events.count >= 20)
    #expect(sample.events.allSatisfy { $0.type.contains(".") })
  }

  @Test func linesKeepTheirNumbersAndTheirText() throws {
    let text =
      "\u{FEFF}{\"type\":\"a.b\",\"key\":null,\"payload\":1.50}\r\n\n{\"type\":\"c\",\"key\":\"k\",\"payload\":null}"
    let file = try EventFile(name: "f", bytes: Data(text.utf8))
    #expect(file.events.map(\.line) == [1, 3])
    #expect(file.events.map(\.key) == [nil, "k"])
    #expect(file.events[0].json.contains("1.50"))
  }

  @Test(arguments: [
    ("{", "it is not JSON"),
    ("[]", "it is not a JSON object"),
    (#"{"payload":1}"#, "\"type\" is missing"),
    (#"{"type":"","payload":1}"#, "\"type\" must be"),
    (#"{"type":7,"payload":1}"#, "\"type\" must be"),
    (#"{"type":"a b","payload":1}"#, "\"type\" must be"),
    (#"{"type":"a"}"#, "\"payload\" is missing"),
    (#"{"type":"a","key":"","payload":1}"#, "\"key\" must be"),
    (#"{"type":"a","key":1,"payload":1}"#, "\"key\" must be"),
    (#"{"type":"a","payload":[{"b":"\u0000"}]}"#, "\\u0000"),
  ])
  func badLineIsNamedWithItsProblem(line: String, problem: String) {
    let bytes = Data(("{\"type\":\"a\",\"payload\":1}\n" + line + "\n").utf8)
    #expect {
      try EventFile(name: "events.jsonl", bytes: bytes)
    } throws: { error in
      let text = "\(error)"
      return text.hasPrefix("events.jsonl, line 2: ") && text.contains(problem)
    }
  }

  @Test func invalidUTF8AndEmptyFilesAreRefused() {
    #expect(throws: DemoError.self) { try EventFile(name: "f", bytes: Data([0x22, 0xFF, 0x22])) }
    #expect(throws: DemoError.self) { try EventFile(name: "f", bytes: Data("\n \n".utf8)) }
    #expect(throws: DemoError.self) { try EventFile(path: "/nowhere/events.jsonl") }
  }
}
