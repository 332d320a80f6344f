package nightshift;

import java.io.IOException;
import java.nio.file.Files;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.permission.FsPermission;

/**
 * Hadoop's files of this machine, whose modes are set without a process of `chmod` for each.
 *
 * <p>Hadoop starts one for every file and folder that it makes, unless it has a library of its own,
 * which Spark does not bring: of the processor time of writing small files that was two fifths.
 */
public final class LocalFiles extends LocalFileSystem {
    public LocalFiles() {
        super(new Raw());
    }

    private static final class Raw extends RawLocalFileSystem {
        private static final String MODE = "unix:mode";

        /** Of a folder: whose owner and group its files get, which `chmod` leaves as they are. */
        private static final int HANDED_ON = 06000;

        @Override
        public void setPermission(Path path, FsPermission permission) throws IOException {
            java.nio.file.Path file = pathToFile(path).toPath();
            int kept = 0;
            if (Files.isDirectory(file)) {
                kept = (Integer) Files.getAttribute(file, MODE) & HANDED_ON;
            }
            Files.setAttribute(file, MODE, kept | permission.toShort());
        }
    }
}
