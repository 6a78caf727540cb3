import Foundation
import SampleEvents

/// An event to publish, as a line of a file has it.
struct FileEvent: Sendable, Equatable {
  var type: String
  var key: String?
  /// The whole line. PostgreSQL takes the payload out of it, so that not a digit of a number is lost on the way.
  var json: String
  var line: Int
}

/// JSON Lines of `{"type": …, "key": …, "payload": …}`; the key may be missing or null.
struct EventFile: Sendable {
  static let byteLimit = 256 << 20

  /// As messages call it.
  let name: String
  let events: [FileEvent]

  /// The project's own sample set, which the binary carries.
  static func sample() throws -> EventFile {
    try EventFile(name: "events.jsonl", bytes: Data(sampleEvents))
  }

  init(path: String) throws {
    let bytes: Data
    do {
      let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
      bytes = try handle.read(upToCount: Self.byteLimit + 1) ?? Data()
    } catch {
      let reason = FileManager.default.fileExists(atPath: path) ? "it cannot be read" : "there is no such file"
      throw DemoError("\(path): \(reason)")
    }
    guard bytes.count <= Self.byteLimit else {
      throw DemoError("\(path): it is larger than \(Self.byteLimit >> 20) MiB; the demo keeps it in memory")
    }
    try self.init(name: path, bytes: bytes)
  }

  /// - Throws: ``DemoError`` naming the file, the line and what is wrong with it.
  init(name: String, bytes: Data) throws {
    var events: [FileEvent] = []
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    for (index, var line) in lines.enumerated() {
      if index == 0, line.starts(with: [0xEF, 0xBB, 0xBF]) { line = line.dropFirst(3) }
      if line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { continue }
      do {
        events.append(try FileEvent(Data(line), line: index + 1))
      } catch let problem as DemoError {
        throw DemoError("\(name), line \(index + 1): \(problem)")
      }
    }
    guard !events.isEmpty else { throw DemoError("\(name): there is no event in it") }
    self.name = name
    self.events = events
  }

  /// The type that occurs most often; of equals the first in the alphabet.
  var mostFrequentType: String {
    let counts = Dictionary(events.map { ($0.type, 1) }, uniquingKeysWith: +)
    return counts.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key ?? ""
  }
}

extension FileEvent {
  /// The longest key that the log takes, less what tells the rounds through a short file apart.
  static let keyByteLimit = 1000
  static let payloadByteLimit = 1 << 20

  init(_ bytes: Data, line: Int) throws {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw DemoError("it is not valid UTF-8") }
    guard bytes.count <= Self.payloadByteLimit else { throw DemoError("it is larger than 1 MiB") }
    let value: Any
    do {
      value = try JSONSerialization.jsonObject(with: bytes)
    } catch {
      let reason = (error as NSError).userInfo["NSDebugDescription"].map { ": \($0)" } ?? ""
      throw DemoError("it is not JSON\(reason)")
    }
    guard let object = value as? [String: Any] else { throw DemoError("it is not a JSON object") }
    guard let type = object["type"] else { throw DemoError("\"type\" is missing") }
    guard let type = type as? String, type.wholeMatch(of: /[A-Za-z0-9_][A-Za-z0-9_.:\/\-]{0,254}/) != nil else {
      throw DemoError("\"type\" must be 1 to 255 of A-Z a-z 0-9 _ . : / -, as in \"order.created\"")
    }
    guard let payload = object["payload"] else { throw DemoError("\"payload\" is missing") }
    guard !Self.holdsNUL(payload) else { throw DemoError("the payload contains \\u0000, which PostgreSQL cannot keep") }
    var key: String?
    if let value = object["key"], !(value is NSNull) {
      guard let text = value as? String, (1...Self.keyByteLimit).contains(text.utf8.count), !text.contains("\0") else {
        throw DemoError("\"key\" must be null or a text of 1 to \(Self.keyByteLimit) bytes")
      }
      key = text
    }
    self.init(type: type, key: key, json: text, line: line)
  }

  private static func holdsNUL(_ value: Any) -> Bool {
    switch value {
    case let text as String: text.utf8.contains(0)
    case let array as [Any]: array.contains(where: holdsNUL)
    case let object as [String: Any]: object.contains { holdsNUL($0.key) || holdsNUL($0.value) }
    default: false
    }
  }
}
