import CLibCurl
import Glibc

/// Header lines in the form libcurl reads, in memory that is used again for the next request.
///
/// libcurl only reads the list, so its nodes and their text may live in two buffers of our own: no allocation per
/// line, none per request once the buffers have grown to their usual size.
struct HeaderLines: ~Copyable {
  enum Problem: Error {
    case malformed
    case tooLarge
  }

  static let limitBytes = 64 * 1024
  static let limitLines = 256

  private var text: UnsafeMutablePointer<CChar>
  private var textCapacity = 1024
  private var textCount = 0
  private var nodes: UnsafeMutablePointer<curl_slist>
  private var nodeCapacity = 16
  /// Nodes point into `text`, which may move while it grows: offsets first, addresses at the end.
  private var offsets: [Int] = []

  init() {
    text = .allocate(capacity: textCapacity)
    nodes = .allocate(capacity: nodeCapacity)
    offsets.reserveCapacity(nodeCapacity)
  }

  deinit {
    text.deallocate()
    nodes.deallocate()
  }

  /// Lays the lines out. The result is good until the next call.
  mutating func fill(_ lines: [String]) throws(Problem) -> UnsafeMutablePointer<curl_slist> {
    textCount = 0
    offsets.removeAll(keepingCapacity: true)
    // No body of ours is worth a round trip to ask whether it is welcome; and many receivers never answer the question.
    try append("Expect:")
    var namesContentType = false
    guard lines.count <= Self.limitLines else { throw .tooLarge }
    for line in lines {
      try append(line)
      namesContentType = namesContentType || Self.isContentType(line)
    }
    // Else libcurl would call the body a web form.
    if !namesContentType { try append("Content-Type:") }
    return link()
  }

  private mutating func append(_ line: String) throws(Problem) {
    var line = line
    // The closure of withUTF8 cannot throw a typed error; it reports instead.
    let problem: Problem? = line.withUTF8 { bytes in
      var colon = -1
      for index in bytes.indices {
        let byte = bytes[index]
        if HTTPHeader.isForbiddenInLine(byte) { return .malformed }
        if byte == 0x3A, colon < 0 { colon = index }
      }
      guard colon > 0 else { return .malformed }
      guard textCount + bytes.count + 1 <= Self.limitBytes else { return .tooLarge }
      reserveText(bytes.count + 1)
      offsets.append(textCount)
      UnsafeMutableRawPointer(text + textCount).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
      text[textCount + bytes.count] = 0
      textCount += bytes.count + 1
      return nil
    }
    if let problem { throw problem }
  }

  private static func isContentType(_ line: String) -> Bool {
    let name = "content-type:".utf8
    // Only ASCII letters and '-', ':' are compared, for which setting bit 5 lowers a letter and leaves the others.
    return line.utf8.count >= name.count && zip(line.utf8, name).allSatisfy { $0 | 0x20 == $1 }
  }

  private mutating func reserveText(_ count: Int) {
    guard textCount + count > textCapacity else { return }
    textCapacity = max(textCapacity * 2, textCount + count)
    let larger = UnsafeMutablePointer<CChar>.allocate(capacity: textCapacity)
    larger.update(from: text, count: textCount)
    text.deallocate()
    text = larger
  }

  private mutating func link() -> UnsafeMutablePointer<curl_slist> {
    if offsets.count > nodeCapacity {
      nodes.deallocate()
      nodeCapacity = offsets.count
      nodes = .allocate(capacity: nodeCapacity)
    }
    for (index, offset) in offsets.enumerated() {
      let next = index + 1 < offsets.count ? nodes + index + 1 : nil
      (nodes + index).initialize(to: curl_slist(data: text + offset, next: next))
    }
    return nodes
  }
}

extension HeaderLines.Problem {
  var message: String {
    switch self {
    case .malformed: "a header line is not of the form \"Name: value\", or contains a control character"
    case .tooLarge:
      "there are more than \(HeaderLines.limitLines) header lines or \(HeaderLines.limitBytes) bytes of them"
    }
  }
}
