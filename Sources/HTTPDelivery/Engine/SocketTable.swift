import CLibCurl
import Glibc

/// Which socket each connection uses. libcurl 7.88 tells it only once a transfer has ended, so this remembers the sockets by
/// the names of their two ends. Touched by the engine thread alone; it must outlive every connection.
final class SocketTable {
  struct Ends: Hashable {
    let remoteAddress: String
    let remotePort: Int32
    let localPort: Int32
  }

  private var descriptors: [Ends: Int32] = [:]
  private var ends: [Int32: Ends] = [:]

  func descriptor(_ ends: Ends) -> Int32? { descriptors[ends] }

  /// One of these, opened for a new connection, has become it.
  func insert(_ opened: [Int32], _ ends: Ends) {
    guard let descriptor = opened.first(where: { Self.localPort($0) == ends.localPort }) else { return }
    remove(descriptor)
    descriptors[ends] = descriptor
    self.ends[descriptor] = ends
  }

  private func remove(_ descriptor: Int32) {
    guard let former = ends.removeValue(forKey: descriptor), descriptors[former] == descriptor else { return }
    descriptors.removeValue(forKey: former)
  }

  /// Called by libcurl for every socket it is done with.
  static let close: curl_closesocket_callback = { context, descriptor in
    if let context { Unmanaged<SocketTable>.fromOpaque(context).takeUnretainedValue().remove(descriptor) }
    return Glibc.close(descriptor)
  }

  private static func localPort(_ descriptor: Int32) -> Int32? {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return withUnsafeMutableBytes(of: &address) { bytes in
      guard let start = bytes.baseAddress,
        getsockname(descriptor, start.assumingMemoryBound(to: sockaddr.self), &length) == 0
      else { return nil }
      // The port stands at the same place for both families.
      return Int32(UInt16(bigEndian: start.load(fromByteOffset: 2, as: UInt16.self)))
    }
  }
}
