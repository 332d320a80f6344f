package nightshift;

import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;
import java.lang.management.MemoryUsage;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Scanner;
import java.util.Set;
import javax.security.sasl.AuthenticationException;
import org.apache.hadoop.hive.conf.HiveConf;
import org.apache.hive.service.auth.PasswdAuthenticationProvider;
import org.apache.hive.service.cli.CLIService;
import org.apache.hive.service.cli.thrift.ThriftBinaryCLIService;
import org.apache.hive.service.rpc.thrift.TGetOperationStatusReq;
import org.apache.hive.service.rpc.thrift.TGetOperationStatusResp;
import org.apache.hive.service.rpc.thrift.TOpenSessionReq;
import org.apache.hive.service.rpc.thrift.TOpenSessionResp;
import org.apache.hive.service.server.HiveServer2;
import org.apache.spark.SparkContext;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.SparkSessionExtensions;
import org.apache.spark.sql.catalyst.FunctionIdentifier;
import org.apache.spark.sql.catalyst.analysis.FunctionRegistry;
import org.apache.spark.sql.catalyst.analysis.FunctionRegistry$;
import org.apache.spark.sql.catalyst.expressions.ExpressionInfo;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.execution.command.SetCommand;
import org.apache.spark.sql.execution.datasources.LogicalRelation;
import org.apache.spark.sql.hive.thriftserver.HiveThriftServer2;
import org.apache.spark.sql.hive.thriftserver.SparkSQLCLIService;
import org.apache.spark.sql.hive.thriftserver.ui.HiveThriftServer2EventManager;
import scala.Option;
import scala.Tuple2;
import scala.Tuple3;
import scala.jdk.javaapi.CollectionConverters;
import scala.runtime.AbstractFunction1;
import scala.runtime.BoxedUnit;

/**
 * What Spark's Thrift server lacks: a login, and statements that can only read the lake's tables.
 *
 * <p>The service compiles this when it starts, with the compiler that Spark brings (Janino): no
 * lambdas, no diamonds.
 */
public final class Door {
  /** The one session that may do anything: the service's own, which registers the tables. */
  private static volatile SparkSession registrar;

  private static volatile Map passwords = new HashMap();

  private Door() {}

  /** Who may come in from now on: the names, and at the same places their passwords. */
  public static void admit(List users, List theirPasswords) {
    Map admitted = new HashMap();
    for (int i = 0; i < users.size(); i++) {
      admitted.put(users.get(i), theirPasswords.get(i));
    }
    passwords = admitted;
  }

  /** Let the service's own session pass the guard. */
  public static void trust(SparkSession session) {
    registrar = session;
  }

  /** Listen; each connection gets a session that shares nothing but the tables. */
  public static void open(SparkSession session) throws Exception {
    HiveConf settings = new HiveConf();
    HiveThriftServer2.eventManager_$eq(new HiveThriftServer2EventManager(session.sparkContext()));
    SparkSQLCLIService sessions = new SparkSQLCLIService(new HiveServer2(), session);
    sessions.init(settings);
    Listener listener = new Listener(sessions);
    listener.init(settings);
    sessions.start();
    listener.start();
    new Memory(session.sparkContext()).start();
  }

  /**
   * Ends what fills the memory that is kept for long: with nearly nothing of it left Java collects
   * all again and again, for many minutes, and nobody is answered.
   */
  private static final class Memory extends Thread {
    private static final long LOOK_MILLISECONDS = 200;

    /** Some statements never ask whether they were told to end. */
    private static final long PATIENCE_MILLISECONDS = 15000;

    /** Of what is kept for long, after a collection. Spark plans with less for what it can spill. */
    private static final double FULL = 0.9;

    private final SparkContext spark;
    private final MemoryPoolMXBean kept = keptForLong();
    private final GarbageCollectorMXBean collector = collectorOf(kept);

    Memory(SparkContext spark) {
      super("memory");
      this.spark = spark;
      setDaemon(true);
    }

    public void run() {
      // Loads what it takes, for which there may be no room later.
      spark.statusTracker().getActiveJobIds();
      long seen = collector.getCollectionCount();
      long lastRoom = System.currentTimeMillis();
      while (true) {
        try {
          Thread.sleep(LOOK_MILLISECONDS);
          long collections = collector.getCollectionCount();
          long now = System.currentTimeMillis();
          if (collections == seen || !isFull()) {
            lastRoom = now;
          } else if (now - lastRoom < PATIENCE_MILLISECONDS) {
            // At once: a moment later a task may not get as far as to see that it was told to end.
            endStatements();
          } else {
            endServer();
          }
          seen = collections;
        } catch (InterruptedException told) {
          return;
        } catch (Throwable nothingLeft) {
          // It looks again.
        }
      }
    }

    private boolean isFull() {
      MemoryUsage after = kept.getCollectionUsage();
      return after.getUsed() > FULL * after.getMax();
    }

    private static MemoryPoolMXBean keptForLong() {
      Iterator pools = ManagementFactory.getMemoryPoolMXBeans().iterator();
      while (pools.hasNext()) {
        MemoryPoolMXBean pool = (MemoryPoolMXBean) pools.next();
        // Those of new objects may be full, and have none.
        if (pool.getType() == MemoryType.HEAP && pool.isUsageThresholdSupported()) {
          return pool;
        }
      }
      throw new IllegalStateException("This Java tells nothing of its memory.");
    }

    private static GarbageCollectorMXBean collectorOf(MemoryPoolMXBean pool) {
      Iterator collectors = ManagementFactory.getGarbageCollectorMXBeans().iterator();
      while (collectors.hasNext()) {
        GarbageCollectorMXBean collector = (GarbageCollectorMXBean) collectors.next();
        if (Arrays.asList(collector.getMemoryPoolNames()).contains(pool.getName())) {
          return collector;
        }
      }
      throw new IllegalStateException("This Java tells nothing of its collections.");
    }

    /** All of them: which of them holds the memory Java does not tell. */
    private void endStatements() {
      int[] jobs = spark.statusTracker().getActiveJobIds();
      for (int i = 0; i < jobs.length; i++) {
        spark.cancelJob(
            jobs[i],
            "because the memory of the JDBC server was full, by this statement or by one beside it:"
                + " ask for less at once, or raise NIGHTSHIFT_JDBC_MEMORY.");
      }
    }

    /** Its supervisor starts it again. */
    private static void endServer() {
      System.err.println("The memory stays full, after all statements were told to end.");
      Runtime.getRuntime().halt(1);
    }
  }

  /** Refuses whoever has no password. */
  public static final class Login implements PasswdAuthenticationProvider {
    public void Authenticate(String user, String password) throws AuthenticationException {
      String wanted = (String) passwords.get(user);
      // Takes as long for a password that is nearly right.
      boolean isRight =
          wanted != null
              && password != null
              && MessageDigest.isEqual(wanted.getBytes(), password.getBytes());
      if (!isRight) {
        throw new AuthenticationException("No such user, or not the password of this user.");
      }
    }
  }

  /** Takes no settings: by some of them a client could read files or open the door to others. */
  public static final class Listener extends ThriftBinaryCLIService {
    public Listener(CLIService sessions) {
      super(sessions);
    }

    public TOpenSessionResp OpenSession(TOpenSessionReq request)
        throws org.apache.thrift.TException {
      Map given = request.getConfiguration();
      Map kept = new HashMap();
      Object database = given == null ? null : given.get("use:database");
      if (database != null) {
        kept.put("use:database", database);
      }
      request.setConfiguration(kept);
      return super.OpenSession(request);
    }

    /** Says what is wrong without the pages of Java's calls, which Hive adds. */
    public TGetOperationStatusResp GetOperationStatus(TGetOperationStatusReq request)
        throws org.apache.thrift.TException {
      TGetOperationStatusResp answer = super.GetOperationStatus(request);
      String message = answer.getErrorMessage();
      int calls = message == null ? -1 : message.indexOf("\n\tat ");
      if (calls >= 0) {
        answer.setErrorMessage(message.substring(0, calls));
      }
      return answer;
    }
  }

  /** Puts the guard into every session; Spark makes it by its name. */
  public static final class Extensions extends AbstractFunction1 {
    public Object apply(Object extensions) {
      SparkSessionExtensions all = (SparkSessionExtensions) extensions;
      all.injectCheckRule(new Guards());
      // Not left to the guard: where a value is needed before the plan is whole, such as in VALUES,
      // a function has run by then.
      Set harmless = harmlessFunctions();
      FunctionRegistry builtin = FunctionRegistry$.MODULE$.builtin();
      Iterator known = CollectionConverters.asJava(builtin.listFunction()).iterator();
      while (known.hasNext()) {
        String name = ((FunctionIdentifier) known.next()).funcName();
        if (!harmless.contains(name)) {
          ExpressionInfo told = new ExpressionInfo(Door.class.getName(), name);
          FunctionIdentifier called = new FunctionIdentifier(name);
          all.injectFunction(new Tuple3(called, told, new NoFunction(name)));
        }
      }
      return BoxedUnit.UNIT;
    }
  }

  /**
   * Functions that reach nothing but the values that they are given.
   *
   * <p>Not among them: those that call any method of Java (`reflect`), and those that are given a
   * path or an address, which the server would read and go on to what stands there (the schema of
   * XML or Avro, the descriptors of Protobuf).
   */
  private static Set harmlessFunctions() {
    Scanner words = new Scanner(Door.class.getResourceAsStream("functions.txt"), "UTF-8");
    Set found = new HashSet();
    while (words.hasNext()) {
      found.add(words.next());
    }
    words.close();
    return found;
  }

  private static final class NoFunction extends AbstractFunction1 {
    private final String name;

    NoFunction(String name) {
      this.name = name;
    }

    public Object apply(Object arguments) {
      throw refusal("the function " + name);
    }
  }

  private static final class Guards extends AbstractFunction1 {
    public Object apply(Object session) {
      return new Guard(session);
    }
  }

  /** Lets through what it knows to be harmless, once every name in it means something. */
  private static final class Guard extends AbstractFunction1 {
    private static final Set COMMANDS =
        setOf(
            "DescribeColumn DescribeColumnCommand DescribeDatabaseCommand DescribeFunctionCommand"
                + " DescribeNamespace DescribeQueryCommand DescribeRelation DescribeTableCommand"
                + " ExplainCommand SetCatalogAndNamespace SetNamespaceCommand ShowCatalogsCommand"
                + " ShowColumns ShowColumnsCommand ShowCurrentNamespaceCommand"
                + " ShowDeltaPartitionsCommand ShowDeltaTableColumnsCommand ShowFunctions"
                + " ShowFunctionsCommand ShowNamespaces ShowNamespacesCommand ShowTableProperties"
                + " ShowTablePropertiesCommand ShowTables ShowTablesCommand ShowViews"
                + " ShowViewsCommand");
    private static final Set QUERIES =
        setOf(
            "Aggregate AsOfJoin CTERelationDef CTERelationRef Deduplicate Distinct Except Expand"
                + " Filter Generate GlobalLimit Intersect Join LateralJoin LocalLimit LocalRelation"
                + " Offset OneRowRelation PipeOperator Pivot Project Range Repartition RepartitionByExpression"
                + " ResolvedHint Sample Sort Subquery SubqueryAlias Tail Union UnionLoop"
                + " UnionLoopRef Unpivot Window WithCTE"
                // What Spark itself makes of a result on its way to the client.
                + " CommandResult DeserializeToObject");

    private final Object session;

    Guard(Object session) {
      this.session = session;
    }

    public Object apply(Object plan) {
      if (session != registrar && !isOfDelta()) {
        check((LogicalPlan) plan);
      }
      return BoxedUnit.UNIT;
    }

    /** Delta asks Spark for the log of a table, in the session that asks Delta for the table. */
    private static boolean isOfDelta() {
      StackTraceElement[] callers = Thread.currentThread().getStackTrace();
      for (int i = 0; i < callers.length; i++) {
        if (callers[i].getClassName().startsWith("org.apache.spark.sql.delta.")) {
          return true;
        }
      }
      return false;
    }

    private void check(LogicalPlan plan) {
      String name = plan.getClass().getSimpleName();
      if (!isHarmless(plan, name)) {
        throw refusal(name);
      }
      if (!COMMANDS.contains(name)) {
        checkAll(CollectionConverters.asJava(plan.children()).iterator());
        checkAll(CollectionConverters.asJava(plan.subqueries()).iterator());
      }
    }

    private void checkAll(Iterator plans) {
      while (plans.hasNext()) {
        check((LogicalPlan) plans.next());
      }
    }

    private static boolean isHarmless(LogicalPlan plan, String name) {
      if (plan instanceof LogicalRelation) {
        // Files that are named by their path have none.
        return ((LogicalRelation) plan).catalogTable().isDefined();
      }
      if (plan instanceof SetCommand) {
        return isOnlyRead((SetCommand) plan);
      }
      return COMMANDS.contains(name) || QUERIES.contains(name);
    }

    /** `SET`, `SET -v` and `SET name` show settings; drivers ask for them. */
    private static boolean isOnlyRead(SetCommand command) {
      Option asked = command.kv();
      return asked.isEmpty() || ((Option) ((Tuple2) asked.get())._2()).isEmpty();
    }
  }

  private static Set setOf(String names) {
    return new HashSet(Arrays.asList(names.split(" ")));
  }

  private static RuntimeException refusal(String what) {
    return new SecurityException(
        "Not here: " + what + ". By JDBC the tables of the lake can be read, and nothing else.");
  }
}
